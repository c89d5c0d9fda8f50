// SPDX-License-Identifier: Apache-2.0
// A text of a new VM's seed: typed, pasted, or a file of who makes the VM.
import { FileUpload } from "@patternfly/react-core/dist/dynamic/components/FileUpload";
import { FormGroup } from "@patternfly/react-core/dist/dynamic/components/Form";
import { useState } from "react";
import { type FieldProps, Help } from "./Field";
import { type Finding, limits } from "./validate";

export function SeedField(props: FieldProps) {
  const { label, id, value, onChange, help } = props;
  const [name, setName] = useState("");
  const [refused, setRefused] = useState<Finding>();
  const finding = refused ?? props.finding;
  const take = (name: string, refused?: Finding) => {
    setName(name);
    setRefused(refused);
  };
  return (
    <FormGroup label={label} fieldId={id}>
      <FileUpload
        id={id}
        type="text"
        value={value}
        filename={name}
        filenamePlaceholder="Drop a file here, or type below"
        filenameAriaLabel={`File of the ${label.toLowerCase()}`}
        browseButtonText="Choose file"
        browseButtonAriaDescribedby={`${id}-help`}
        aria-label={label}
        allowEditingUploadedText
        validated={finding ? "error" : "default"}
        dropzoneProps={{
          maxSize: limits.seed,
          onDropAccepted: ([chosen]) => take(chosen?.name ?? ""),
          onDropRejected: () => take(name, { problem: "That is no file of at most 64 KiB; nothing was changed." }),
        }}
        onDataChange={(_, text) => onChange(text)}
        onTextChange={(_, text) => {
          take(name);
          onChange(text);
        }}
        onReadFailed={() => take("", { problem: "The file cannot be read." })}
        onClearClick={() => {
          take("");
          onChange("");
        }}
      />
      <Help id={id} finding={finding} help={help} />
    </FormGroup>
  );
}
