-- SPDX-License-Identifier: Apache-2.0

ALTER TABLE vms ADD COLUMN cid INTEGER; -- of its guest's sockets; NULL: it has none
CREATE UNIQUE INDEX vms_cid ON vms (cid) WHERE cid IS NOT NULL;
