// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"strings"
	"testing"
)

const kallsyms = "ffffffff81000000 T _text\n" +
	"ffffffffc0001000 t vmm_exit\t[vmm]\n" +
	"ffffffffc0000000 t new_claim\t[vmm]\n" +
	"ffffffffc0003000 d params\t[vmm]\n" +
	"ffffffffc0100000 t vmm_exit\t[vmm_other]\n"

const leakReport = `unreferenced object 0xffff888104a3c000 (size 64):
  comm "kworker/0:1", pid 7, jiffies 4294937296 (age 9.360s)
  backtrace:
    [<ffffffff81234567>] kmalloc_trace+0x27/0x90
    [<ffffffffc0100010>] 0xffffffffc0100010
unreferenced object 0xffff888104a3c400 (size 64):
  comm "kabi.test", pid 212, jiffies 4294937300 (age 9.320s)
  backtrace:
    [<ffffffff81234567>] kmalloc_trace+0x27/0x90
    [<ffffffffc0000043>] 0xffffffffc0000043
`

func TestLeaksOfTheModule(t *testing.T) {
	l := &leaks{on: true, symbols: parseSymbols([]byte(kallsyms))}
	if len(l.symbols) != 2 {
		t.Fatalf("symbols %v, want the two functions", l.symbols)
	}
	l.symbols[0], l.symbols[1] = l.symbols[1], l.symbols[0] // as learn sorts them
	got := l.ofModule(leakReport)
	if strings.Count(got, "unreferenced") != 1 || !strings.Contains(got, "[<ffffffffc0000043>] new_claim+0x43 [vmm]\n") {
		t.Errorf("got:\n%s", got)
	}
	loaded := strings.ReplaceAll(leakReport, "] 0xffffffffc0000043", "] new_claim+0x43/0x120 [vmm]")
	if got := new(leaks).ofModule(loaded); strings.Count(got, "unreferenced") != 1 || !strings.Contains(got, "/0x120 [vmm]") {
		t.Errorf("of a module that is loaded:\n%s", got)
	}
	if got := l.ofModule(""); got != "" {
		t.Errorf("of an empty report: %q", got)
	}
}
