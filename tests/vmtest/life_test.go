// SPDX-License-Identifier: Apache-2.0

//go:build lab

package vmtest_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"vmctl/abi"
	"vmctl/monitor/console/proto"
	"vmctl/monitor/ctl"
	"vmctl/monitor/spec"
	"vmctl/tests/vmtest"
)

// uptime is the guest's, in seconds.
func uptime(t *testing.T, s *vmtest.Screen) float64 {
	t.Helper()
	first, _, _ := strings.Cut(s.Run("cat /proc/uptime"), " ")
	up, err := strconv.ParseFloat(first, 64)
	if err != nil {
		t.Fatal(err)
	}
	return up
}

// A reset, whoever asks for it, starts the guest again in the same process, the
// same VM and the same console, with all CPUs; twice, because what a reset forgot
// shows at the next.
func TestResetInsideTheSameVM(t *testing.T) {
	v, s := boot(t, vmtest.Config{VCPUs: 2})
	runs := []struct {
		how string
		do  func()
	}{
		{"reboot", func() { s.Type("reboot -f\n") }},
		{"operator", func() {
			if err := v.Client.Reset(v.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"keyboard controller", func() { s.Type("printf '\\376' | dd of=/dev/port bs=1 seek=100\n") }},
	}
	for i, r := range runs {
		s.Run("touch /tmp/before")
		up := uptime(t, s)
		r.do()
		if e := vmtest.Event[*ctl.GuestReset](v); e.Count != uint32(i+1) {
			t.Errorf("%s: reset number %d", r.how, e.Count)
		}
		s.Expect(prompt)
		if again := uptime(t, s); again > up+60 {
			t.Errorf("%s: up for %v s, before %v s", r.how, again, up)
		}
		if got := s.Run("nproc; ls /tmp"); got != "2" {
			t.Errorf("%s: CPUs and files: %q", r.how, got)
		}
	}
	if info := v.Info(); info.State != abi.VMStateRunning || info.ID != v.ID {
		t.Errorf("the kernel says %v of VM %d", info.State, info.ID)
	}
	st, err := v.Client.Status(v.Context())
	if err != nil || st.Resets != 3 || st.Reason != abi.ReasonReset || st.State != ctl.Running || st.ConsoleViewers != 1 {
		t.Errorf("status %+v, %v", st, err)
	}
}

// end waits for the end and compares what everybody says about it.
func end(t *testing.T, v *vmtest.VMX, want abi.Reason) {
	t.Helper()
	if e := vmtest.Event[*ctl.VMStopped](v); e.Reason != want || e.Text == "" {
		t.Errorf("event %+v, want %v", e, want)
	}
	if got := v.Wait(); got != want {
		t.Errorf("exit status %v, want %v", got, want)
	}
}

func TestHowAGuestEnds(t *testing.T) {
	// Nobody types here, so it need not boot to the end.
	const talkative = "console=ttyS0 panic=-1"
	for _, c := range []struct {
		name    string
		cmdline string
		onReset spec.Policy
		do      func(v *vmtest.VMX, s *vmtest.Screen)
		want    abi.Reason
		kernel  abi.Reason
	}{
		{"power off", "", 0, func(_ *vmtest.VMX, s *vmtest.Screen) {
			s.Type("poweroff -f\n")
		}, abi.ReasonPoweroff, abi.ReasonPoweroff},
		{"reset with the policy to stop", "", spec.Stop, func(_ *vmtest.VMX, s *vmtest.Screen) {
			s.Type("reboot -f\n")
		}, abi.ReasonReset, abi.ReasonMonitorGone},
		{"triple fault", "console=ttyS0 reboot=t panic=-1 quiet", 0, func(_ *vmtest.VMX, s *vmtest.Screen) {
			s.Type("reboot -f\n")
		}, abi.ReasonTripleFault, abi.ReasonTripleFault},
		{"panic device", "", 0, func(_ *vmtest.VMX, s *vmtest.Screen) {
			s.Type("printf '\\001' | dd of=/dev/port bs=1 seek=1285\n")
		}, abi.ReasonPanic, abi.ReasonPanic},
		{"shutdown by vmctld", talkative, 0, func(v *vmtest.VMX, _ *vmtest.Screen) {
			if err := v.Client.Shutdown(v.Context()); err != nil && !errors.Is(err, ctl.ErrGone) {
				v.Fatal(err)
			}
		}, abi.ReasonOperator, abi.ReasonMonitorGone},
		{"stop by the kernel", talkative, 0, func(v *vmtest.VMX, _ *vmtest.Screen) {
			if err := v.VM.Stop(); err != nil {
				v.Fatal(err)
			}
		}, abi.ReasonOperator, abi.ReasonOperator},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, s := vmtest.Boot(t, vmtest.Config{Cmdline: c.cmdline, OnReset: c.onReset})
			if c.cmdline == talkative {
				s.Expect("Linux version")
			} else {
				s.Expect(prompt)
			}
			c.do(v, s)
			if last := s.UntilClose(); last.Code != proto.Shutdown {
				t.Errorf("console closed with %+v", last)
			}
			end(t, v, c.want)
			if info := v.Info(); info.State != abi.VMStateStopped || info.Reason != c.kernel {
				t.Errorf("the kernel says %v, %v; want %v", info.State, info.Reason, c.kernel)
			}
		})
	}
}

// The kernel knows why the VM ended; the scrollback is a file, and the next monitor
// goes on where this one ended.
func testKilledMonitor(t *testing.T, v *vmtest.VMX, s *vmtest.Screen) {
	s.Run("echo first''run")
	if err := v.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := v.Wait(); got != abi.ReasonMonitorGone {
		t.Errorf("ended with %v", got)
	}
	if info := v.Info(); info.State != abi.VMStateStopped || info.Reason != abi.ReasonMonitorGone {
		t.Errorf("the kernel says %v, %v", info.State, info.Reason)
	}
	next := vmtest.StartIn(t, v.Dir)
	late := next.View("a", ctl.ReadOnly)
	late.Expect(prompt)
	late.Expect("firstrun")
}

// The newest control connection is vmctld; the older one ends, the guest goes on.
func testControlIsTakenUpAgain(t *testing.T, v *vmtest.VMX, s *vmtest.Screen) {
	old := v.Client
	v.Dial()
	<-old.Done()
	hello, err := v.Client.Hello(v.Context())
	if err != nil || hello.Protocol != ctl.Version || hello.State != ctl.Running {
		t.Errorf("%+v, %v", hello, err)
	}
	if err := v.Client.Start(v.Context()); !errors.Is(err, &ctl.Error{Code: ctl.StateConflict}) {
		t.Errorf("second start: %v", err)
	}
	if got := s.Run("echo $((6*7))"); got != "42" {
		t.Errorf("6*7 is %q", got)
	}
}

func TestShutdownBeforeStart(t *testing.T) {
	v := vmtest.Start(t)
	if err := v.Client.Shutdown(v.Context()); err != nil && !errors.Is(err, ctl.ErrGone) {
		t.Fatal(err)
	}
	if got := v.Wait(); got != abi.ReasonNone {
		t.Errorf("exit status %v", got)
	}
}
