// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"
)

// KeySize is the least size of a signing key in bytes.
const KeySize = 32

const maxKeyFile = 4096

// ReadKey reads a key file: either KeySize raw bytes, or base64 of at least
// so many, with white space around it. It accepts no file above 4 KiB.
func ReadKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	key, err := parseKey(b)
	if err != nil {
		return nil, fmt.Errorf("read signing key %s: %w", path, err)
	}
	return key, nil
}

func parseKey(b []byte) ([]byte, error) {
	if len(b) == KeySize {
		return b, nil
	}
	if len(b) > maxKeyFile {
		return nil, fmt.Errorf("file is larger than %d bytes", maxKeyFile)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("neither %d raw bytes nor base64: %w", KeySize, err)
	}
	return key, checkKey(key)
}

func checkKey(key []byte) error {
	if len(key) < KeySize {
		return fmt.Errorf("key has %d bytes, needs %d", len(key), KeySize)
	}
	return nil
}
