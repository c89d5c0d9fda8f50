// SPDX-License-Identifier: Apache-2.0

// Package kabi tests the kernel interface of vmm.h against the module itself.
//
// Its tests have the build tag lab, because they need /dev/vmm and are run as
// root in a throw-away machine:
//
//	CGO_ENABLED=0 go test -c -tags lab -o build/kabi.test ./tests/kabi
//	build/bin/lab exec --kernel 6.12 -- build/kabi.test -test.v
//
// Where the device is missing they fail. VMM_THEFTS sets how many creations the
// thief test watches in all; 400 when it is not set.
package kabi
