// SPDX-License-Identifier: Apache-2.0
// The fields of a form, with what is said below them.
import { FormGroup, FormHelperText } from "@patternfly/react-core/dist/dynamic/components/Form";
import { FormSelect, FormSelectOption } from "@patternfly/react-core/dist/dynamic/components/FormSelect";
import { HelperText, HelperTextItem } from "@patternfly/react-core/dist/dynamic/components/HelperText";
import { TextArea } from "@patternfly/react-core/dist/dynamic/components/TextArea";
import { TextInput } from "@patternfly/react-core/dist/dynamic/components/TextInput";
import type { Finding } from "./validate";

export interface FieldProps {
  label: string;
  id: string;
  value: string;
  finding: Finding;
  onChange: (value: string) => void;
  disabled?: boolean;
  help?: string;
}

export function Field(props: FieldProps & { required?: boolean; numeric?: boolean; autoFocus?: boolean }) {
  const { label, id, value, finding, onChange, required = false, numeric, disabled = false, autoFocus, help } = props;
  return (
    <FormGroup label={label} fieldId={id} isRequired={required}>
      <TextInput
        id={id}
        value={value}
        isRequired={required}
        isDisabled={disabled}
        autoFocus={autoFocus}
        autoComplete="off"
        autoCapitalize="none"
        spellCheck={false}
        inputMode={numeric ? "numeric" : "text"}
        validated={validated(finding)}
        aria-describedby={`${id}-help`}
        onChange={(_, next) => onChange(next)}
      />
      <Help id={id} finding={finding} help={help} />
    </FormGroup>
  );
}

/** LinesField is one of a thing a line. */
export function LinesField({ label, id, value, finding, onChange, disabled, help }: FieldProps) {
  return (
    <FormGroup label={label} fieldId={id}>
      <TextArea
        id={id}
        value={value}
        rows={Math.min(Math.max(value.split("\n").length, 2), 6)}
        resizeOrientation="vertical"
        spellCheck={false}
        autoCapitalize="none"
        isDisabled={disabled}
        validated={validated(finding)}
        aria-describedby={`${id}-help`}
        onChange={(_, next) => onChange(next)}
      />
      <Help id={id} finding={finding} help={help} />
    </FormGroup>
  );
}

/** Choice is one of a few values; options are what they are called. */
export function Choice({ label, id, value, finding, onChange, disabled, options }: FieldProps & { options: Record<string, string> }) {
  return (
    <FormGroup label={label} fieldId={id}>
      <FormSelect id={id} value={value} isDisabled={disabled} validated={validated(finding)} onChange={(_, next) => onChange(next)}>
        {Object.entries(options).map(([value, label]) => (
          <FormSelectOption key={value} value={value} label={label} />
        ))}
      </FormSelect>
      {finding && <Help id={id} finding={finding} />}
    </FormGroup>
  );
}

export function Help({ id, finding, help }: { id: string; finding: Finding; help?: string | undefined }) {
  const text = finding ? ("problem" in finding ? finding.problem : finding.warning) : help;
  return (
    <FormHelperText>
      <HelperText id={`${id}-help`} isLiveRegion>
        {text && <HelperTextItem variant={validated(finding)}>{text}</HelperTextItem>}
      </HelperText>
    </FormHelperText>
  );
}

export const validated = (finding: Finding) => (!finding ? "default" : "problem" in finding ? "error" : "warning");
