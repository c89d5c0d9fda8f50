// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import "vmctl/abi"

// Commands of a vCPU's gate, and commands that nobody knows.

func vcpuOps() []operation {
	bare := func(name string, req uintptr) operation {
		return operation{name: name, req: req, on: onVCPU, build: func(g *gen, c *call) {
			c.patience = 1 + g.Uint32N(1+g.Uint32N(3)) // most guests that stay do so for ever
		}}
	}
	return []operation{
		bare("VCPU_RUN", abi.IOCVCPURun), bare("VCPU_PAUSE", abi.IOCVCPUPause),
		bare("VCPU_RESUME", abi.IOCVCPUResume), bare("VCPU_KICK", abi.IOCVCPUKick),
	}
}

// unknownReq stands for a number that the call itself says.
const unknownReq = ^uintptr(0)

// oddCommandOps are numbers that nobody knows, and arguments of zeros and noise
// for all that somebody does.
func oddCommandOps() []operation {
	return []operation{{name: "unknown", req: unknownReq, on: onVM, size: 512, build: func(g *gen, c *call) {
		c.on = g.slot(kind(g.IntN(3)))
		known := [...]uint64{abi.IOCKVMRun, abi.IOCKVMCreateVM, abi.IOCKVMGetRegs, 0x5421, 0x5451, 0x541b, 0, 0xffff_ffff}
		switch g.IntN(4) {
		case 0:
			c.n[1] = known[g.IntN(len(known))]
		case 1:
			c.n[1] = abi.IOCMagic<<8 | g.Uint64N(256) | g.Uint64N(4)<<30 | g.Uint64N(64)<<16
		default:
			c.n[1] = abi.IOCMagic<<8 | g.Uint64N(256)
		}
		for range g.IntN(8) {
			c.arg[4+g.IntN(60)] = byte(g.Uint32())
		}
		c.arg = c.arg[:8*(1+g.IntN(64))]
	}}}
}
