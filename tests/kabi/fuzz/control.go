// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package main

import (
	"time"
	"unsafe"

	"vmctl/abi"
)

// Commands of who controls a VM, and those of its monitor that say how it goes.

func controlOps() []operation {
	return []operation{
		whole[abi.VMConfigSet]("VM_CONFIG_SET", abi.IOCVMConfigSet, onVM, buildConfig),
		withAfter(whole[abi.VMDelegate]("VM_DELEGATE", abi.IOCVMDelegate, onVM, buildDelegate), afterDelegate),
		whole[abi.VMPause]("VM_PAUSE", abi.IOCVMPause, onVM, buildPause),
		whole[abi.VMResume]("VM_RESUME", abi.IOCVMResume, onVM, func(g *gen, c *call) {
			in[abi.VMResume](c, 0).Holder = g.holder()
		}),
		ending(whole[abi.VMFlags]("VM_STOP", abi.IOCVMStop, onVM, nil)),
		ending(whole[abi.VMFlags]("VM_DESTROY", abi.IOCVMDestroy, onVM, nil)),
		whole[abi.VMFlags]("VM_BIND", abi.IOCVMBind, onVM, func(g *gen, c *call) {
			c.patience = 1 << (4 + g.IntN(10)) // it takes long, and begins anew with each signal
		}),
		ending(whole[abi.VMReport]("VM_REPORT", abi.IOCVMReport, onVM, buildReport)),
		classed[abi.VMStats]("VM_GET_STATS VM", abi.IOCVMGetStats, abi.StatsVM, onVM, nil),
		classed[abi.VCPUStats]("VM_GET_STATS VCPU", abi.IOCVMGetStats, abi.StatsVCPU, onVM, func(g *gen, c *call) {
			in[abi.VCPUStats](c, headSize).VCPU = g.cpu()
		}),
		classed[abi.KVMStats]("VM_GET_STATS KVM", abi.IOCVMGetStats, abi.StatsKVM, onVM, buildKVMStats),
	}
}

func ending(o operation) operation {
	o.ends = true
	return o
}

// cpu is the number of a vCPU, mostly one that is there.
func (g *gen) cpu() uint32 { return g.Uint32N(1 + g.Uint32N(perGroup)) }

func (g *gen) holder() abi.Pause {
	if g.one(4) {
		return abi.PauseSnapshot
	}
	return abi.PauseOperator
}

// buildConfig lowers limits: a choice leaves room for what the sequence makes.
func buildConfig(g *gen, c *call) {
	v := in[abi.VMConfigSet](c, 0)
	for _, f := range []*uint32{&v.MaxVCPUs, &v.MaxMemSlots, &v.MaxDoorbells, &v.MaxBackends} {
		if g.step.choice < 0 {
			*f = g.Uint32N(12)
		} else if g.one(2) {
			*f = perGroup
		}
	}
	if g.one(2) {
		v.MaxMemory = 4 * areaSize << g.IntN(8)
	}
}

func buildDelegate(g *gen, c *call) {
	v := in[abi.VMDelegate](c, 0)
	v.Rights = g.rights()
	c.n[0] = g.vm()
	if g.step.choice >= 0 {
		c.n[0] = uint64(g.step.choice)
	}
}

func afterDelegate(t *thread, c *call, arg []byte) {
	t.pool.put(ref{onVM, uint8(c.n[0])}, (*abi.VMDelegate)(unsafe.Pointer(&arg[0])).FD)
}

// buildPause waits for up to a few milliseconds, mostly.
func buildPause(g *gen, c *call) {
	v := in[abi.VMPause](c, 0)
	v.Holder = g.holder()
	waits := [...]time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, time.Hour}
	if !g.one(4) {
		c.fixes = append(c.fixes, fix{off: int(unsafe.Offsetof(v.Deadline)), what: fixNow, plus: int64(waits[g.IntN(len(waits))])})
	}
}

func buildReport(g *gen, c *call) {
	v := in[abi.VMReport](c, 0)
	v.Reason = abi.ReasonReset
	if g.one(8) {
		v.Reason = abi.ReasonPoweroff + abi.Reason(g.IntN(5))
	}
	for i := range v.Data {
		v.Data[i] = g.Uint64()
	}
}

func buildKVMStats(g *gen, c *call) {
	n := [...]int{0, 8, 24, 1024, 16384}[g.IntN(5)]
	c.arg = g.buf[:len(c.arg)+n]
	v := in[abi.KVMStats](c, headSize)
	v.VCPU, v.Bytes = g.cpu(), uint32(n)
	if g.one(3) {
		v.VCPU = abi.StatsOfVM
	}
	if g.one(10) {
		v.Bytes = g.Uint32N(20000)
	}
}
