// SPDX-License-Identifier: Apache-2.0

package api

import "time"

// Task is a write that takes time. It is kept for days after its end.
type Task struct {
	ID            string     `json:"id" format:"uuid"`
	Kind          TaskKind   `json:"kind" enum:"vm.powerOn,vm.powerOff,vm.shutdown,vm.reset,vm.pause,vm.resume,vm.save,vm.snapshot,vm.merge,vm.attachDisk,vm.detachDisk,vm.attachNic,vm.detachNic,vm.delete"`
	VM            *VMRef     `json:"vm,omitempty"`
	Disk          *int       `json:"disk,omitempty" minimum:"0" doc:"Of vm.snapshot and vm.merge: the disk's place in the VM's spec, from 0 on"`
	Device        *Device    `json:"device,omitempty" doc:"Of vm.attachDisk and the like: what comes or goes"`
	State         TaskState  `json:"state" enum:"queued,running,succeeded,failed"`
	Progress      int        `json:"progress" minimum:"0" maximum:"100"`
	QueuePosition int        `json:"queuePosition" minimum:"0" doc:"Tasks of the same VM before this one; 0 when it runs or ended"`
	Error         *TaskError `json:"error,omitempty"`
	Actor         string     `json:"actor" doc:"Principal that asked for it"`
	RequestID     string     `json:"requestId"`
	CreatedAt     time.Time  `json:"createdAt"`
	StartedAt     *time.Time `json:"startedAt,omitempty"`
	EndedAt       *time.Time `json:"endedAt,omitempty"`
}

// Ended reports whether the task will not change any more.
func (t *Task) Ended() bool { return t.State == TaskSucceeded || t.State == TaskFailed }

// TaskKind is what a task does.
type TaskKind string

// What tasks do.
const (
	TaskPowerOn    TaskKind = "vm.powerOn"
	TaskPowerOff   TaskKind = "vm.powerOff"
	TaskShutdown   TaskKind = "vm.shutdown"
	TaskReset      TaskKind = "vm.reset"
	TaskPause      TaskKind = "vm.pause"
	TaskResume     TaskKind = "vm.resume"
	TaskSave       TaskKind = "vm.save"
	TaskSnapshot   TaskKind = "vm.snapshot"
	TaskMerge      TaskKind = "vm.merge"
	TaskAttachDisk TaskKind = "vm.attachDisk"
	TaskDetachDisk TaskKind = "vm.detachDisk"
	TaskAttachNIC  TaskKind = "vm.attachNic"
	TaskDetachNIC  TaskKind = "vm.detachNic"
	TaskDelete     TaskKind = "vm.delete"
)

// TaskState is where a task stands.
type TaskState string

// queued -> running -> succeeded | failed; a queued task can fail at once.
const (
	TaskQueued    TaskState = "queued"
	TaskRunning   TaskState = "running"
	TaskSucceeded TaskState = "succeeded"
	TaskFailed    TaskState = "failed"
)

// TaskError is why a task failed.
type TaskError struct {
	Code   Code   `json:"code"`
	Detail string `json:"detail"`
}

// TaskAccepted is the body of a 202.
type TaskAccepted struct {
	Task Task `json:"task"`
}

// TaskList is one page of tasks, newest first.
type TaskList struct {
	Items      []Task `json:"items" nullable:"false"`
	NextCursor string `json:"nextCursor,omitempty" doc:"Pass as cursor to get the next page"`
	EventSeq   int64  `json:"eventSeq" doc:"The page holds every event up to this number: watch from here"`
}
