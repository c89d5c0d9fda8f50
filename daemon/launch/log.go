// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"bufio"
	"errors"
	"time"
)

const (
	logLine   = 1024 // bytes of one line that are kept
	logBurst  = 50   // lines in logPeriod
	logPeriod = 10 * time.Second
)

// copyLog takes what a monitor writes to its log into ours: bounded in length
// and rate, since what drives it may be a guest.
func (p *process) copyLog() {
	defer p.wg.Done()
	r := bufio.NewReaderSize(p.out, logLine)
	began, lines, dropped := time.Now(), 0, 0
	for {
		line, err := r.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		if time.Since(began) > logPeriod {
			if dropped > 0 {
				p.log.Warn("monitor's log was cut", "op", "log", "lines", dropped)
			}
			began, lines, dropped = time.Now(), 0, 0
		}
		switch {
		case len(line) == 0:
		case lines < logBurst:
			lines++
			p.log.Info("monitor", "op", "log", "text", string(line))
		default:
			dropped++
		}
		if long {
			err = skipLine(r)
		}
		if err != nil {
			return // it ended, or nobody wants its log any more
		}
	}
}

// skipLine reads up to the end of a line that is too long.
func skipLine(r *bufio.Reader) error {
	for {
		_, err := r.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}
