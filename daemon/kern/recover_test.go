// SPDX-License-Identifier: Apache-2.0

package kern

import "testing"

func TestOnNotice(t *testing.T) {
	at := position{seq: 5, instance: 1}
	for _, tt := range []struct {
		notice position
		want   verdict
	}{
		{position{6, 1}, handOn},
		{position{5, 1}, skip},
		{position{1, 1}, skip},
		{position{7, 1}, fetch},
		{position{5000, 1}, fetch},
		{position{6, 2}, reconnect},
		{position{1, 2}, reconnect},
	} {
		if got := at.onNotice(tt.notice); got != tt.want {
			t.Errorf("at %v, notice %v: %d, want %d", at, tt.notice, got, tt.want)
		}
	}
}

func TestOnJournal(t *testing.T) {
	at := position{seq: 5, instance: 1}
	for _, tt := range []struct {
		what string
		end  position
		seqs []uint64
		want verdict
	}{
		{"nothing missed", position{5, 1}, nil, handOn},
		{"all there", position{8, 1}, []uint64{6, 7, 8}, handOn},
		{"the first are forgotten", position{8, 1}, []uint64{7, 8}, dump},
		{"all are forgotten", position{8, 1}, nil, dump},
		{"overtaken while it was read", position{9, 1}, []uint64{6, 7, 9}, dump},
		{"overtaken up to its end", position{9, 1}, []uint64{6, 7}, dump},
		{"another in the place of one", position{8, 1}, []uint64{6, 8, 9}, dump},
		{"the end is before the reader", position{3, 1}, nil, dump},
		{"another load", position{5, 2}, nil, reconnect},
		{"another load that is further", position{8, 2}, []uint64{6, 7, 8}, reconnect},
	} {
		var events []event
		for _, seq := range tt.seqs {
			events = append(events, event{position: position{seq, tt.end.instance}})
		}
		if got := at.onJournal(tt.end, events); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.what, got, tt.want)
		}
	}
}
