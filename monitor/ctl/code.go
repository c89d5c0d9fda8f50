// SPDX-License-Identifier: Apache-2.0

package ctl

import "strconv"

// Code says how a request ended. The numbers are the protocol's and never
// change; String gives the name under which a code is known everywhere.
type Code uint32

// Codes of a reply.
const (
	OK              Code = 0
	BadMessage      Code = 1  // the message cannot be read
	UnknownRequest  Code = 2  // its type is not known
	StateConflict   Code = 3  // not in this state
	SpecInvalid     Code = 4  // a spec that cannot be read
	VCPUsInvalid    Code = 5  // number of vCPUs out of bounds
	MemoryInvalid   Code = 6  // size of memory out of bounds
	CmdlineTooLong  Code = 7  // command line too long, for us or for the kernel
	CmdlineInvalid  Code = 8  // command line with a NUL byte
	DescriptorWrong Code = 9  // a descriptor is missing, or is not what it should be
	BootFileInvalid Code = 10 // kernel that cannot be booted
	KernelTooLarge  Code = 11 // kernel does not fit into memory
	InitrdTooLarge  Code = 12 // initramfs does not fit into memory
	KernelFailed    Code = 13 // the kernel module refused a command
	LimitExceeded   Code = 14 // too many of something
	Unsupported     Code = 15 // this host cannot do it
	Internal        Code = 16 // anything else
	DiskInvalid     Code = 17 // a disk whose backend or file cannot be one
	NICInvalid      Code = 18 // likewise a network card
	SaveInvalid     Code = 19 // files that are no save of this machine
	SaveFailed      Code = 20 // the machine could not be written, and goes on
	FormatInvalid   Code = 21 // a file of a disk that is not of its format, or damaged
	FormatRefused   Code = 22 // an image that asks for what is not supported: encryption, or to be repaired
	BackingInvalid  Code = 23 // an image whose backing file is not as was said
	MergeInvalid    Code = 24 // a disk that has nothing to merge, or that is not merged
	numCodes             = 25
)

var codeNames = [numCodes]string{
	"ok", "badMessage", "unknownRequest", "stateConflict", "specInvalid", "vcpusInvalid", "memoryInvalid",
	"cmdlineTooLong", "cmdlineInvalid", "descriptorWrong", "bootFileInvalid", "kernelTooLarge", "initrdTooLarge",
	"kernelFailed", "limitExceeded", "unsupported", "internal", "diskInvalid",
	"nicInvalid", "saveInvalid", "saveFailed", "diskFormatInvalid", "diskFormatRefused", "diskBackingInvalid", "mergeInvalid",
}

// String returns the code's name, such as "initrdTooLarge".
func (c Code) String() string {
	if c < numCodes {
		return codeNames[c]
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}

// Error is a reply other than OK.
type Error struct {
	Code Code
	Text string // for people: what was tried, and why it failed
}

// Error returns code and text.
func (e *Error) Error() string { return e.Code.String() + ": " + e.Text }

// Is reports whether target is an Error of the same code, whatever its text.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}
