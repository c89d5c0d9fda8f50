// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"

	"vmctl/daemon/api"
	"vmctl/daemon/client"
)

// Exit statuses; vmctl(1) lists them, scripts rely on them.
const (
	statusOK          = 0
	statusError       = 1
	statusUsage       = 2
	statusNotFound    = 3
	statusConflict    = 4 // exists already, or not in this state
	statusDenied      = 5 // not logged in, or not allowed
	statusUnreachable = 6 // nobody answers
	statusInterrupted = 130
	statusPipe        = 141 // nobody reads the output any more, as a shell reports it
)

// usageError is a command line that cannot be meant, found by the command.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// notLoggedIn is the lack of a session for a server.
type notLoggedIn struct{ server string }

func (e notLoggedIn) Error() string { return "not logged in at " + e.server }

// sessionOver is the refusal of a session that was kept.
type sessionOver struct{ error }

func (e sessionOver) Unwrap() error { return e.error }

// refused marks an error of a remote server that does not know the session.
func refused(c *client.Client, err error) error {
	var answered *client.Error
	if c.Remote() && errors.As(err, &answered) && answered.Status == http.StatusUnauthorized {
		return sessionOver{err}
	}
	return err
}

// taskError is a task that ended as failed.
type taskError struct{ task *api.Task }

func (e taskError) Error() string {
	if e.task.Error == nil {
		return fmt.Sprintf("the task failed (task %s)", e.task.ID)
	}
	return fmt.Sprintf("%s (%s, task %s)", e.task.Error.Detail, e.task.Error.Code, e.task.ID)
}

// goesOn is a task that is no longer waited for.
type goesOn struct {
	why  string
	task string
}

func (e goesOn) Error() string { return e.why + "; it goes on as task " + e.task }

func status(err error) int {
	var (
		usage    usageError
		login    notLoggedIn
		answered *client.Error
	)
	switch {
	case err == nil:
		return statusOK
	case errors.As(err, &usage), errors.Is(err, client.ErrNameInvalid):
		return statusUsage
	case errors.As(err, &login):
		return statusDenied
	case errors.As(err, &answered):
		return httpStatus(answered.Status)
	case client.Unreachable(err):
		return statusUnreachable
	}
	return statusError
}

func httpStatus(code int) int {
	switch code {
	case http.StatusNotFound:
		return statusNotFound
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusPreconditionRequired:
		return statusConflict
	case http.StatusUnauthorized, http.StatusForbidden:
		return statusDenied
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return statusUnreachable
	}
	return statusError
}

// hint says what to do about an error, where that is known.
func (p *program) hint(err error) string {
	var (
		login notLoggedIn
		over  sessionOver
		pin   *client.PinError
	)
	_, server, _ := p.target()
	switch {
	case errors.As(err, &login):
		return "; run: vmctl login --server " + login.server
	case errors.As(err, &pin):
		return "; nothing was sent. If the certificate was changed on purpose, run: vmctl login --server " +
			server + " --fingerprint " + pin.Got.String()
	case errors.As(err, &over):
		return "; to log in again, run: vmctl login --server " + server
	case server == "" && errors.Is(err, os.ErrPermission) && client.Unreachable(err):
		return "; the socket is for members of the group vmctl"
	case server == "" && errors.Is(err, os.ErrNotExist) && client.Unreachable(err):
		return "; vmctld does not run here, or has another socket"
	}
	return ""
}
