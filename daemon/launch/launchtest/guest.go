// SPDX-License-Identifier: Apache-2.0

package launchtest

import (
	"time"

	"vmctl/abi"
	"vmctl/monitor/ctl"
)

// moment is long enough for a start to be over.
const moment = 300 * time.Millisecond

// guest runs until the VM is stopped, then ends the process with the reason.
func (s *stub) guest() {
	s.mu.Lock()
	behaviour, v := s.behaviour, s.vm
	s.mu.Unlock()
	if behaviour != Hangs {
		if err := v.Run(); err != nil {
			s.die("run", err)
		}
	}
	switch behaviour {
	case Falters, Tires:
		time.Sleep(moment)
	}
	switch behaviour {
	case PowersOff, Tires:
		s.end(abi.ReasonPoweroff)
	case Panics, Falters:
		s.end(abi.ReasonPanic)
	case Crashes:
		s.exit <- 139
	case Breaks:
		s.tell(&ctl.DeviceBroken{Device: "disk0", Text: "the guest's ring is none"})
	case Calls:
		go s.calls()
	case Resets:
		s.mu.Lock()
		s.resets++
		n := s.resets
		s.mu.Unlock()
		v.Report(abi.ReasonReset, [4]uint64{}) // stopped meanwhile: seen below
		s.tell(&ctl.GuestReset{Count: n})
	}
	// A vCPU would come back from VCPU_RUN at once; this one looks.
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		info, err := v.Info()
		if (err != nil || info.State == abi.VMStateStopped) && behaviour != Stubborn {
			s.exit <- int(abi.ReasonOperator)
		}
	}
}

func (s *stub) end(reason abi.Reason) {
	s.tell(&ctl.VMStopped{Reason: reason, Text: "said the guest"})
	s.vm.Report(reason, [4]uint64{1, 2, 3, 4}) // stopped meanwhile is as good
	s.exit <- int(reason)
}
