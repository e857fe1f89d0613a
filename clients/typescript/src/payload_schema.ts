/** Payloads checked by any validator that follows Standard Schema, version 1 (https://standardschema.dev). */
import { InvalidDataError, type Issue, messageOf, report } from './errors.js';

/** A validator: Zod, Valibot, ArkType and others are such. It has to answer at once, not by a promise. */
export interface StandardSchema<Output = unknown> {
  readonly '~standard': {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
    readonly types?: { readonly input: unknown; readonly output: Output } | undefined;
  };
}

export type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly Issue[] };

/**
 * The value that the schema gives for `value`; without a schema, the value itself.
 *
 * @throws InvalidDataError when it is not what the schema asks for.
 */
export function validate<Output>(schema: StandardSchema<Output> | undefined, value: unknown): Output {
  if (schema === undefined) return value as Output;
  const result = answer(schema, value);
  if (result.issues !== undefined) throw new InvalidDataError(result.issues);
  return result.value;
}

/** What the schema says. One that throws, or answers by a promise, does not say that the value is right. */
function answer<Output>(schema: StandardSchema<Output>, value: unknown): SchemaResult<Output> {
  try {
    const result = schema['~standard'].validate(value);
    if (!(result instanceof Promise)) return result;
    result.catch(report);
    return { issues: [{ message: 'the schema answers by a promise' }] };
  } catch (error) {
    return { issues: [{ message: messageOf(error) }] };
  }
}
