// SPDX-License-Identifier: Apache-2.0

package kern

// position is a place in the kernel's events: the number of the last one, and
// the load of the module within which numbers count.
type position struct {
	seq      uint64
	instance uint64 // random, one per load
}

// verdict says what a reader does with what came.
type verdict int

const (
	handOn    verdict = iota // it follows on what the reader has
	skip                     // the reader has it already
	fetch                    // some are missing before it: the journal may have them
	dump                     // the journal does not have them: read all there is
	reconnect                // the module was loaded anew, and this socket hears nothing of it
)

// onNotice judges the notice that is at e, for a reader that is at p.
func (p position) onNotice(e position) verdict {
	switch {
	case e.instance != p.instance:
		return reconnect
	case e.seq <= p.seq:
		return skip
	case e.seq > p.seq+1:
		return fetch
	}
	return handOn
}

// onJournal judges the answer to what came after p: it reaches up to end. The
// kernel keeps the last events alone, and may lose some of an answer that is
// overtaken while it is read.
func (p position) onJournal(end position, events []event) verdict {
	if end.instance != p.instance {
		return reconnect
	}
	if end.seq != p.seq+uint64(len(events)) {
		return dump
	}
	for i := range events {
		if events[i].seq != p.seq+1+uint64(i) {
			return dump
		}
	}
	return handOn
}
