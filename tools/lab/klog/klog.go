// SPDX-License-Identifier: Apache-2.0

// Package klog reads a kernel's log as it is written and finds what makes a
// run fail: oopses, BUG and WARNING, the sanitizers' and lockdep's reports,
// stalls and panics. Only what stands between two marks is judged.
package klog

import (
	"bytes"
	"regexp"
	"strings"
)

// Limits of what a Scanner keeps, in bytes, complaints and lines.
const (
	maxLine       = 4 << 10
	maxLog        = 16 << 20
	maxComplaints = 20
	maxTrace      = 120
	maxBefore     = 8
)

// Complaint is one thing that the kernel reported.
type Complaint struct {
	Kind  string   // what it is, in a word or two
	Fatal bool     // the machine may not answer any more
	Trace []string // its lines in the log, the telling one among them
}

// kind is a kind of complaint and the line that gives it away.
type kind struct {
	name  string
	fatal bool
	match *regexp.Regexp
}

// kinds are tried in order.
var kinds = []kind{
	{"panic", true, regexp.MustCompile(`Kernel panic - not syncing`)},
	{"oops", true, regexp.MustCompile(`\[#\d+\]`)},
	{"KASAN", false, regexp.MustCompile(`BUG: KASAN: `)},
	{"KCSAN", false, regexp.MustCompile(`BUG: KCSAN: `)},
	{"KMSAN", false, regexp.MustCompile(`BUG: KMSAN: `)},
	{"KFENCE", false, regexp.MustCompile(`BUG: KFENCE: `)},
	{"UBSAN", false, regexp.MustCompile(`UBSAN: `)},
	{"BUG", true, regexp.MustCompile(`kernel BUG at |BUG: (kernel NULL|unable to handle)`)},
	{"BUG", false, regexp.MustCompile(`\bBUG: `)},
	{"lockdep", false, regexp.MustCompile(`WARNING: (possible|inconsistent|suspicious|bad unlock|held lock|lock held|nested lock|.*lock.*leaked)|INFO: (possible (recursive|circular)|inconsistent lock|suspicious RCU|trying to register non-static key)`)},
	{"WARNING", false, regexp.MustCompile(`\bWARNING: `)},
	{"hung task", true, regexp.MustCompile(`INFO: task .* blocked`)},
	{"stall", true, regexp.MustCompile(`INFO: rcu\w* .*(detected|self-detected)`)},
	{"bad page", false, regexp.MustCompile(`Bad page map|Bad page state`)},
	{"refcount", false, regexp.MustCompile(`refcount_t: `)},
	{"KUnit", false, regexp.MustCompile(`^ *# \S+: (EXPECTATION|ASSERTION) FAILED at |^not ok \d+ `)},
	{"MSR", false, regexp.MustCompile(`unchecked MSR access error`)},
	{"interrupt", false, regexp.MustCompile(`irq \d+: nobody cared`)},
}

// A report ends with one of these lines, or where the next one begins.
var (
	cut      = regexp.MustCompile(`-+\[ cut here \]-+`)
	endTrace = regexp.MustCompile(`---\[ end (trace|Kernel panic)`)
	fence    = regexp.MustCompile(`={20,}`)
	stamp    = regexp.MustCompile(`^(<\d+>)?\[ *\d+\.\d+\](\[ *[TC]\d+\])? ?`)
)

// Scanner takes the log as it comes. It is an io.Writer, which never fails, for
// one goroutine.
type Scanner struct {
	begin, end string // the marks
	judging    bool
	ended      bool
	partial    []byte
	log        bytes.Buffer
	dropped    int
	complaints []Complaint
	open       bool     // the last complaint still takes lines
	before     []string // lines since "cut here", or the one before
}

// NewScanner judges what comes after a line that ends with begin, up to one
// that ends with end. An empty begin judges from the first line on.
func NewScanner(begin, end string) *Scanner {
	return &Scanner{begin: begin, end: end, judging: begin == ""}
}

// Write takes the next piece of the log.
func (s *Scanner) Write(p []byte) (int, error) {
	n := len(p)
	s.keep(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			s.partial = append(s.partial, p[:min(len(p), maxLine-min(maxLine, len(s.partial)))]...)
			break
		}
		s.partial = append(s.partial, p[:min(i, maxLine-min(maxLine, len(s.partial)))]...)
		s.line(strings.TrimRight(string(s.partial), "\r"))
		s.partial = s.partial[:0]
		p = p[i+1:]
	}
	return n, nil
}

func (s *Scanner) keep(p []byte) {
	room := maxLog - s.log.Len()
	s.dropped += max(0, len(p)-room)
	s.log.Write(p[:min(len(p), max(room, 0))])
}

func (s *Scanner) line(line string) {
	text := stamp.ReplaceAllString(line, "")
	switch {
	case !s.judging && s.begin != "" && !s.ended && strings.HasSuffix(text, s.begin):
		s.judging = true
		return
	case s.end != "" && strings.HasSuffix(text, s.end):
		s.judging, s.ended, s.open = false, true, false
		return
	case !s.judging:
		return
	}
	if s.open && s.follow(line, text) {
		return
	}
	for _, k := range kinds {
		if k.match.MatchString(text) {
			s.complain(k, line)
			return
		}
	}
	s.remember(line, text)
}

// follow adds a line to the open report and says whether it belonged there.
func (s *Scanner) follow(line, text string) bool {
	c := &s.complaints[len(s.complaints)-1]
	if cut.MatchString(text) || len(c.Trace) >= maxTrace {
		s.open = false
		s.remember(line, text)
		return cut.MatchString(text)
	}
	c.Trace = append(c.Trace, line)
	for _, k := range kinds {
		c.Fatal = c.Fatal || k.fatal && k.match.MatchString(text)
	}
	s.open = !endTrace.MatchString(text)
	return true
}

func (s *Scanner) complain(k kind, line string) {
	trace := append(s.before, line)
	s.before = nil
	if len(s.complaints) >= maxComplaints {
		if k.fatal {
			s.complaints[maxComplaints-1].Fatal = true
		}
		return
	}
	s.complaints = append(s.complaints, Complaint{Kind: k.name, Fatal: k.fatal, Trace: trace})
	s.open = true
}

// remember keeps the lines that some reports have before the telling one: the
// cut, a message of the module's own, or the fence of a sanitizer.
func (s *Scanner) remember(line, text string) {
	switch {
	case cut.MatchString(text) || fence.MatchString(text):
		s.before = []string{line}
	case len(s.before) > 0 && len(s.before) < maxBefore:
		s.before = append(s.before, line)
	default:
		s.before = nil
	}
}

// Complaints returns what was found so far.
func (s *Scanner) Complaints() []Complaint { return s.complaints }

// Began says whether the begin mark was seen, Ended the same of the end mark.
func (s *Scanner) Began() bool { return s.judging || s.ended }

// Ended says whether the end mark was seen.
func (s *Scanner) Ended() bool { return s.ended }

// Log returns the log so far, all but what came after the first 16 MiB.
func (s *Scanner) Log() []byte { return s.log.Bytes() }

// Dropped returns how many bytes of the log were not kept.
func (s *Scanner) Dropped() int { return s.dropped }

// Tail returns the last n lines of the log that was kept.
func (s *Scanner) Tail(n int) []string {
	lines := strings.Split(strings.TrimRight(s.log.String(), "\r\n"), "\n")
	return lines[max(0, len(lines)-n):]
}
