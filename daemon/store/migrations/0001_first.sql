-- SPDX-License-Identifier: Apache-2.0
-- Times are milliseconds since 1970, UTC. JSON columns hold types of daemon/api.

CREATE TABLE vms (
	id            TEXT PRIMARY KEY,
	name          TEXT NOT NULL UNIQUE,
	uid           INTEGER NOT NULL UNIQUE,   -- of its monitor
	vm            TEXT NOT NULL,             -- api.VM
	monitor_pid   INTEGER NOT NULL,          -- 0: none
	monitor_start INTEGER NOT NULL
) STRICT;

CREATE TABLE tasks (
	at      INTEGER PRIMARY KEY AUTOINCREMENT, -- place in the list
	id      TEXT NOT NULL UNIQUE,
	vm      TEXT NOT NULL,                     -- uuid; empty: of the host
	state   TEXT NOT NULL,
	created INTEGER NOT NULL,
	task    TEXT NOT NULL                      -- api.Task
) STRICT;
CREATE INDEX tasks_vm ON tasks (vm, at);
CREATE INDEX tasks_open ON tasks (at) WHERE state IN ('queued', 'running');

CREATE TABLE events (
	seq   INTEGER PRIMARY KEY,  -- without gaps: the last one and 1
	event TEXT NOT NULL         -- api.Event
) STRICT;

CREATE TABLE audit (
	at         INTEGER PRIMARY KEY AUTOINCREMENT,
	time       INTEGER NOT NULL,
	actor      TEXT NOT NULL,
	session    TEXT NOT NULL,
	address    TEXT NOT NULL,
	request_id TEXT NOT NULL,
	action     TEXT NOT NULL,
	object     TEXT NOT NULL,
	outcome    TEXT NOT NULL    -- done, or a code of daemon/api
) STRICT;

CREATE TABLE answers (          -- what an idempotency key was answered with
	scope   TEXT NOT NULL,      -- principal, method, path
	key     TEXT NOT NULL,
	hash    BLOB NOT NULL,      -- SHA-256 of the body
	created INTEGER NOT NULL,
	status  INTEGER NOT NULL,   -- HTTP status of a refusal; 0: a change was made
	body    TEXT NOT NULL,
	PRIMARY KEY (scope, key)
) STRICT;
CREATE INDEX answers_created ON answers (created);

CREATE TABLE sessions (
	id      TEXT PRIMARY KEY,
	session TEXT NOT NULL,      -- api.SessionPut
	expires INTEGER NOT NULL
) STRICT;

CREATE TABLE grants (
	principal TEXT NOT NULL,
	scope     TEXT NOT NULL,    -- '*' or 'vm:' and a uuid
	role      TEXT NOT NULL,
	PRIMARY KEY (principal, scope)
) STRICT;
