-- SPDX-License-Identifier: Apache-2.0

ALTER TABLE vms ADD COLUMN plugged TEXT; -- vm.Plugged; NULL: no device came or went since the power-on
