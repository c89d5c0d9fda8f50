-- SPDX-License-Identifier: Apache-2.0

ALTER TABLE vms ADD COLUMN scrap TEXT; -- vm.Scrap; NULL: no disk has any
