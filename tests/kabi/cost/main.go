// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

// Command cost measures what the module's interface costs, against the same by
// /dev/kvm alone, side by side in one process:
//
//	cost exits     one VM exit
//	cost create    from the first command of a VM to its first exit
//	cost pause     a VM of eight running vCPUs, until the last one stands
//	cost dump      the inventory of 1,000 VMs against one of 100, for each VM
//
// It prints one line of JSON with the time of each side, in nanoseconds; on a
// machine whose clock counts instructions these are instructions.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
)

// result is one row: medians over the rounds.
type result struct {
	Name  string  `json:"name"`
	Ours  float64 `json:"ours"`
	Other float64 `json:"other"`
}

var costs = map[string]func() ([]result, error){
	"exits": exits, "create": create, "pause": pause, "dump": dump,
}

func main() {
	if len(os.Args) != 2 || costs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: cost exits|create|pause|dump")
		os.Exit(2)
	}
	runtime.LockOSThread()
	debug.SetGCPercent(-1) // no collection in between
	rows, err := costs[os.Args[1]]()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(rows)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cost:", err)
		os.Exit(1)
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
