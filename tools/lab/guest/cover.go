// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// countFolder has a file of counters for each object that was built with them.
// They stay when the module goes, and add up when it comes again.
const countFolder = "/sys/kernel/debug/gcov"

// copyCounts copies the counters to a folder, if one is given.
func copyCounts(to string) error {
	if to == "" {
		return nil
	}
	return filepath.WalkDir(countFolder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("counters: %w", err)
		}
		if filepath.Ext(path) != ".gcda" {
			return nil
		}
		// Its size is not known before it is read.
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("counters: %w", err)
		}
		return os.WriteFile(filepath.Join(to, d.Name()), b, 0o644)
	})
}
