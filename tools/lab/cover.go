// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// covered runs the session and leaves in file what gcov says of the lines of the
// module, one JSON document for each of its objects. A run that fails counts too.
func (l *lab) covered(ctx context.Context, tree *toolTree, s *session, m *machine, mod *module, file string) (int, error) {
	dir, err := os.MkdirTemp(filepath.Join(l.checkout, "build"), "cover-")
	if err != nil {
		return exitLab, err
	}
	defer os.RemoveAll(dir)
	s.command.Cover = dir
	code, err := s.run(ctx, m, mod)
	if ctx.Err() != nil {
		return code, err
	}
	counts, countErr := l.readCounts(ctx, tree, filepath.Dir(mod.path), dir)
	if countErr == nil {
		countErr = os.WriteFile(file, counts, 0o644)
	}
	if countErr != nil {
		countErr = fmt.Errorf("coverage: %w", countErr)
		if code == 0 {
			code = exitLab
		}
	}
	return code, errors.Join(err, countErr)
}

// readCounts reads the counters in dir with the notes that the compiler left
// beside the objects.
func (l *lab) readCounts(ctx context.Context, tree *toolTree, objects, dir string) ([]byte, error) {
	counters, err := filepath.Glob(filepath.Join(dir, "*.gcda"))
	if err != nil {
		return nil, err
	}
	if len(counters) == 0 {
		return nil, errors.New("the machine left no counters")
	}
	argv := []string{"gcov", "--json-format", "--stdout"}
	for _, c := range counters {
		name := filepath.Base(c)
		note := name[:len(name)-len("gcda")] + "gcno"
		b, err := os.ReadFile(filepath.Join(objects, "kmod", note))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, note), b, 0o644); err != nil {
			return nil, err
		}
		argv = append(argv, name)
	}
	cmd, err := l.inTree(ctx, tree, nil, dir, argv)
	if err != nil {
		return nil, err
	}
	var out, said bytes.Buffer
	code, err := runInside(cmd, nil, &out, &said)
	if err == nil && code != 0 {
		err = fmt.Errorf("gcov: %s", whyLine(said.String()))
	}
	return out.Bytes(), err
}
