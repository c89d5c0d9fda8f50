-- SPDX-License-Identifier: Apache-2.0
-- Beside the VM and not in it: a VM is in lists, events and kept answers, which are for
-- eyes that a seed is not for.

CREATE TABLE seeds (
	vm   TEXT PRIMARY KEY,  -- uuid
	seed TEXT NOT NULL      -- api.Seed
) STRICT;
