// SPDX-License-Identifier: Apache-2.0

// Package api holds the types of vmctld's REST interface and the codes of its
// errors. The OpenAPI document is made from them; v1 only grows.
package api

// Code names a kind of error. Clients decide by it and never by a text.
//
// To add one: a constant and a row of codeStatus here, the enum tag of
// Problem.Code, and the regenerated openapi.json.
type Code string

// The codes of v1. A code never changes its meaning.
const (
	CodeInvalidRequest       Code = "invalidRequest"       // the request cannot be read
	CodeUnknownField         Code = "unknownField"         // a field or parameter that does not exist
	CodeNameInvalid          Code = "nameInvalid"          // not a name, and not a uuid
	CodeNotFound             Code = "notFound"             // not there, or not to be seen
	CodeConflict             Code = "conflict"             // another change came first
	CodeExists               Code = "exists"               // the name, or the CID, is taken
	CodeStateConflict        Code = "stateConflict"        // not in this state
	CodePreconditionFailed   Code = "preconditionFailed"   // If-Match names another generation
	CodePreconditionRequired Code = "preconditionRequired" // If-Match is missing
	CodeUnauthenticated      Code = "unauthenticated"      // nobody is known to ask
	CodeForbidden            Code = "forbidden"            // seen, but not allowed
	CodeTooLarge             Code = "tooLarge"             // a body above 1 MiB
	CodeLimitExceeded        Code = "limitExceeded"        // a limit of this host or of a queue
	CodeBootFileMissing      Code = "bootFileMissing"      // no such file in the boot folder
	CodeBootFileInvalid      Code = "bootFileInvalid"      // not a file that boots
	CodeDiskMissing          Code = "diskMissing"          // no such file in the folder of disks
	CodeDiskInvalid          Code = "diskInvalid"          // not a file that can be a disk
	CodeDiskFormatInvalid    Code = "diskFormatInvalid"    // not of the format that was said, or damaged
	CodeDiskFormatRefused    Code = "diskFormatRefused"    // an image that is encrypted, not whole, or more than is supported
	CodeDiskBackingInvalid   Code = "diskBackingInvalid"   // other backing files than the image has
	CodeDiskInUse            Code = "diskInUse"            // another VM has the disk
	CodeNetworkMissing       Code = "networkMissing"       // no such bridge
	CodeNetworkInvalid       Code = "networkInvalid"       // a bridge or an address that a VM cannot have
	CodeSeedInvalid          Code = "seedInvalid"          // a text that no seed can hold
	CodeSeedTooLarge         Code = "seedTooLarge"         // texts above 64 KiB
	CodeSaveInvalid          Code = "saveInvalid"          // what the VM was saved to is damaged, or of another machine
	CodeSaveFailed           Code = "saveFailed"           // the VM could not be saved, and goes on
	CodeSnapshotFailed       Code = "snapshotFailed"       // a disk has no snapshot, and goes on as it was
	CodeMergeInvalid         Code = "mergeInvalid"         // a disk with no snapshot, or none that may be merged
	CodeMergeFailed          Code = "mergeFailed"          // a snapshot could not be merged, and stays
	CodeDetachTimeout        Code = "detachTimeout"        // the guest has not let go of a device yet
	CodeInitrdTooLarge       Code = "initrdTooLarge"       // does not fit into the VM's memory
	CodeMemoryInvalid        Code = "memoryInvalid"        // memoryBytes out of its limits
	CodeVCPUsInvalid         Code = "vcpusInvalid"         // vcpus out of its limits
	CodeCmdlineTooLong       Code = "cmdlineTooLong"       // cmdline above 2047 bytes
	CodeIdempotencyConflict  Code = "idempotencyConflict"  // the key was used with another body
	CodeIdempotencyInFlight  Code = "idempotencyInFlight"  // the first request with the key still runs
	CodeSignatureMissing     Code = "signatureMissing"     // front.sock: no signature
	CodeSignatureInvalid     Code = "signatureInvalid"     // front.sock: a wrong signature
	CodeSignatureStale       Code = "signatureStale"       // front.sock: too old, or older than the daemon
	CodeSignatureReplayed    Code = "signatureReplayed"    // front.sock: the nonce was seen before
	CodeSessionUnknown       Code = "sessionUnknown"       // the login session ended or never was
	CodeMonitorFailed        Code = "monitorFailed"        // vmx could not be started or gave up
	CodeKernelFailed         Code = "kernelFailed"         // vmm.ko refused
	CodeMethodNotAllowed     Code = "methodNotAllowed"     // the path exists, not with this method
	CodeUnavailable          Code = "unavailable"          // not now: starting, stopping, restarted
	CodeInternal             Code = "internal"             // a defect; the log has the request id
)

// Codes lists every code.
func Codes() []Code {
	return []Code{
		CodeInvalidRequest, CodeUnknownField, CodeNameInvalid, CodeNotFound, CodeConflict, CodeExists,
		CodeStateConflict, CodePreconditionFailed, CodePreconditionRequired, CodeUnauthenticated,
		CodeForbidden, CodeTooLarge, CodeLimitExceeded, CodeBootFileMissing, CodeBootFileInvalid,
		CodeDiskMissing, CodeDiskInvalid, CodeDiskFormatInvalid, CodeDiskFormatRefused, CodeDiskBackingInvalid, CodeDiskInUse,
		CodeNetworkMissing, CodeNetworkInvalid, CodeSeedInvalid, CodeSeedTooLarge, CodeSaveInvalid, CodeSaveFailed,
		CodeSnapshotFailed, CodeMergeInvalid, CodeMergeFailed, CodeDetachTimeout,
		CodeInitrdTooLarge, CodeMemoryInvalid, CodeVCPUsInvalid, CodeCmdlineTooLong,
		CodeIdempotencyConflict, CodeIdempotencyInFlight, CodeSignatureMissing, CodeSignatureInvalid,
		CodeSignatureStale, CodeSignatureReplayed, CodeSessionUnknown, CodeMonitorFailed,
		CodeKernelFailed, CodeMethodNotAllowed, CodeUnavailable, CodeInternal,
	}
}

// Error is an error of the model: a code, where it was found, and a text for
// people. It knows nothing of HTTP.
type Error struct {
	Code   Code
	Field  string // path of the offending field, such as body.spec.vcpus; may be empty
	Detail string
	Err    error // what caused it; logged, never sent
}

// Error returns the detail and the cause.
func (e *Error) Error() string {
	text := string(e.Code) + ": " + e.Detail
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
