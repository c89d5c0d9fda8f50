// SPDX-License-Identifier: Apache-2.0

package api

// Problem is the body of every error: RFC 9457, with a code and the request.
type Problem struct {
	Type      string        `json:"type" doc:"about:blank: the code says more"`
	Title     string        `json:"title" doc:"Text of the HTTP status"`
	Status    int           `json:"status" doc:"HTTP status"`
	Detail    string        `json:"detail" doc:"What happened, for people"`
	Code      Code          `json:"code" enum:"invalidRequest,unknownField,nameInvalid,notFound,conflict,exists,stateConflict,preconditionFailed,preconditionRequired,unauthenticated,forbidden,tooLarge,limitExceeded,bootFileMissing,bootFileInvalid,diskMissing,diskInvalid,diskFormatInvalid,diskFormatRefused,diskBackingInvalid,diskInUse,networkMissing,networkInvalid,seedInvalid,seedTooLarge,saveInvalid,saveFailed,snapshotFailed,mergeInvalid,mergeFailed,detachTimeout,initrdTooLarge,memoryInvalid,vcpusInvalid,cmdlineTooLong,idempotencyConflict,idempotencyInFlight,signatureMissing,signatureInvalid,signatureStale,signatureReplayed,sessionUnknown,monitorFailed,kernelFailed,methodNotAllowed,unavailable,internal" doc:"Stable name of the kind of error"`
	RequestID string        `json:"requestId" doc:"Same as the X-Request-Id header"`
	Errors    []ProblemItem `json:"errors,omitempty" nullable:"false" doc:"Each offending field"`
}

// ProblemItem is one field that was refused.
type ProblemItem struct {
	Location string `json:"location" doc:"Path of the field, such as body.spec.vcpus"`
	Message  string `json:"message" doc:"What is wrong with it"`
}

// Error returns code and detail.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }
