// SPDX-License-Identifier: Apache-2.0

package kern

import (
	"context"
	"time"

	"github.com/mdlayher/netlink"

	"vmctl/abi"
)

// VCPU is a vCPU of a run.
type VCPU struct {
	Run       uint64
	Index     uint32
	State     abi.VCPUState
	Paused    bool          // the monitor shut its gate
	Unsettled bool          // the monitor has not completed its last exit
	Kicks     uint64        // times that its thread was asked out
	Parks     uint64        // times that a thread waited at the gate
	Parked    time.Duration // that threads waited there
}

// VCPUs returns the vCPUs of a run, or of all when it is 0. One that has none
// and one that is not there look alike.
func (k *Kernel) VCPUs(ctx context.Context, run uint64) ([]VCPU, error) {
	_, rows, err := list(ctx, k, query{op: "vcpu-get", cmd: abi.CmdVCPUGet, head: headOfVCPUs}.ofRun(abi.AVCPUVMID, run), parseVCPU)
	return rows, err
}

func parseVCPU(d *netlink.AttributeDecoder) (VCPU, error) {
	var v VCPU
	for d.Next() {
		switch d.Type() {
		case abi.AVCPUVMID:
			v.Run = d.Uint64()
		case abi.AVCPUIndex:
			v.Index = d.Uint32()
		case abi.AVCPUState:
			v.State = abi.VCPUState(d.Uint32())
		case abi.AVCPUPaused:
			v.Paused = d.Flag()
		case abi.AVCPUUnsettled:
			v.Unsettled = d.Flag()
		case abi.AVCPUKicks:
			v.Kicks = d.Uint64()
		case abi.AVCPUParks:
			v.Parks = d.Uint64()
		case abi.AVCPUParked:
			v.Parked = time.Duration(d.Uint64())
		}
	}
	return v, orNumber(d.Err(), v.Run)
}
