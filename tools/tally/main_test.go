// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestParse(t *testing.T) {
	tests := []struct {
		name, in string
		want     count
	}{
		{"go", `{"Action":"pass","Package":"p","Test":"A"}
{"Action":"fail","Package":"p","Test":"B"}
{"Action":"skip","Package":"p","Test":"C"}
{"Action":"fail","Package":"p"}`, count{1, 1, 1}},
		{"go package that did not build", `{"Action":"fail","Package":"p"}`, count{0, 1, 0}},
		{"go package without tests", `{"Action":"skip","Package":"p"}`, count{}},
		{"vitest", `{"numPassedTests":3,"numFailedTests":1,"numPendingTests":2}`, count{3, 1, 2}},
		{"playwright", `{"stats":{"expected":4,"unexpected":1,"flaky":1,"skipped":0}}`, count{4, 2, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parse([]byte(tt.in))
			if err != nil || got != tt.want {
				t.Errorf("parse = %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
	if _, err := parse([]byte("not json")); err == nil {
		t.Error("garbage was counted")
	}
}
