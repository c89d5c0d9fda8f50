// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestCocciFindings(t *testing.T) {
	said := `
Please check for false positives in the output before submitting a patch.
/usr/bin/spatch -D report --dir /c/kmod --jobs 2
warning: line 134: should no_llseek be a metavariable?
/c/kmod/x.c:9:2-7: WARNING: NULL check before some freeing functions is not needed.
EXN: Sys_error("no such file") in /c/kmod/y.c
/c/kmodern/x.c:1:1-2: of another folder
`
	want := `/c/kmod/x.c:9:2-7: WARNING: NULL check before some freeing functions is not needed.
EXN: Sys_error("no such file") in /c/kmod/y.c
`
	if got := cocciFindings(said, "/c/kmod"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
