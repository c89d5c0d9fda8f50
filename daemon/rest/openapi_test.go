// SPDX-License-Identifier: Apache-2.0

package rest_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"reflect"

	"vmctl/daemon/api"
	"vmctl/daemon/rest"
)

// TestOpenAPIDrift: the committed document is what the code says.
func TestOpenAPIDrift(t *testing.T) {
	want, err := rest.New(rest.Config{}).OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../api/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("daemon/api/openapi.json is stale: go run ./daemon/vmctld openapi > daemon/api/openapi.json")
	}
}

// TestCodesInSchema: the enum of Problem.Code is the list of codes.
func TestCodesInSchema(t *testing.T) {
	f, _ := reflect.TypeFor[api.Problem]().FieldByName("Code")
	tag := strings.Split(f.Tag.Get("enum"), ",")
	var codes []string
	for _, c := range api.Codes() {
		codes = append(codes, string(c))
	}
	slices.Sort(tag)
	slices.Sort(codes)
	if !slices.Equal(tag, codes) {
		t.Fatalf("enum %v, codes %v", tag, codes)
	}
}
