// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"encoding/json"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"vmctl/daemon/api"
)

// eventData lists what api.Event.Data can be.
func eventData() []reflect.Type {
	return []reflect.Type{
		typeOf[api.VM](), typeOf[api.VMStatus](), typeOf[api.LastStop](), typeOf[api.ResetData](),
		typeOf[api.UnknownData](), typeOf[api.Task](), typeOf[api.ConsoleData](), typeOf[api.SessionData](),
		typeOf[api.RefusedData](), typeOf[api.StartedData](), typeOf[api.LostData](), typeOf[api.EmptyData](),
	}
}

// eventSchema is the schema of api.Event with all that its data can be.
func eventSchema(reg huma.Registry) *huma.Schema {
	ref := reg.Schema(typeOf[api.Event](), true, "")
	data := &huma.Schema{Description: "By kind"}
	for _, t := range eventData() {
		data.AnyOf = append(data.AnyOf, reg.Schema(t, true, ""))
	}
	reg.SchemaFromRef(ref.Ref).Properties["data"] = data
	return ref
}

// openAPI indents the document, so that a change of it reads as one.
func openAPI(doc *huma.OpenAPI) ([]byte, error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
