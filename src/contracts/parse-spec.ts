/** From the text of a campaign file (YAML or JSON) to a validated spec, or one message that names every mistake. */
import { isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml';
import type { Document } from 'yaml';
import type { z } from 'zod';
import { campaignSpecSchema } from './campaign-spec.ts';
import type { CampaignSpec } from './campaign-spec.ts';
import { StillhouseError } from './errors.ts';

type Path = readonly PropertyKey[];
type Issue = z.core.$ZodIssue;

/** One mistake in a spec, for programs: `details.problems` of the error. */
export interface SpecProblem {
  /** `teacher.shots[2].output`; empty for the whole document. */
  readonly path: string;
  readonly expected: string;
  readonly got: string;
  /** 1-based, where the text is YAML or JSON and the key stands in it. */
  readonly line?: number;
}

const MAX_SHOWN_CHARACTERS = 80;

const formatPath = (path: Path): string =>
  path.map((part, index) => (typeof part === 'number' ? `[${part}]` : `${index === 0 ? '' : '.'}${String(part)}`)).join('');

function valueAt(value: unknown, path: Path): unknown {
  let current = value;
  for (const part of path) {
    if (current === null || typeof current !== 'object') return undefined;
    current = (current as Record<PropertyKey, unknown>)[part];
  }
  return current;
}

function describeValue(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
  const text = JSON.stringify(value);
  return text.length <= MAX_SHOWN_CHARACTERS ? text : `${text.slice(0, MAX_SHOWN_CHARACTERS)}…`;
}

const TYPE_NAMES: Readonly<Record<string, string>> = { int: 'a whole number', number: 'a number', string: 'a text', object: 'a mapping', record: 'a mapping', array: 'a list', boolean: 'true or false' };

/** The part of a schema's inner structure that tells which keys it knows. Source: zod/v4/core schemas. */
interface SchemaDefinition {
  readonly type: string;
  readonly innerType?: { readonly _zod: { readonly def: SchemaDefinition } };
  readonly element?: { readonly _zod: { readonly def: SchemaDefinition } };
  /** `values` are those that the key of a union's option may have; `optin` is set where it may be left out. */
  readonly shape?: Readonly<Record<string, { readonly _zod: { readonly def: SchemaDefinition; readonly values?: ReadonlySet<unknown>; readonly optin?: string } }>>;
  readonly options?: readonly { readonly _zod: { readonly def: SchemaDefinition } }[];
  readonly discriminator?: string;
}

/** The keys that a schema knows at a path, following the union options that `value` selects. */
function knownKeys(schema: z.core.$ZodType, path: Path, value: unknown): readonly string[] {
  let definition = schema._zod.def as unknown as SchemaDefinition | undefined;
  const settle = (current: unknown): void => {
    while (definition !== undefined) {
      if (definition.innerType !== undefined) definition = definition.innerType._zod.def;
      else if (definition.discriminator !== undefined) {
        const key = definition.discriminator;
        const wanted = valueAt(current, [key]);
        definition = definition.options?.find(({ _zod }) => {
          const own = _zod.def.shape?.[key]?._zod;
          return wanted === undefined ? own?.optin !== undefined : own?.values?.has(wanted) === true;
        })?._zod.def;
      } else return;
    }
  };
  let current = value;
  settle(current);
  for (const part of path) {
    definition = typeof part === 'number' ? definition?.element?._zod.def : definition?.shape?.[String(part)]?._zod.def;
    current = valueAt(current, [part]);
    settle(current);
  }
  return Object.keys(definition?.shape ?? {});
}

function bound(issue: Issue & { readonly origin: string; readonly inclusive?: boolean | undefined }, word: 'least' | 'most', limit: number | bigint): string {
  if (issue.origin === 'string') return limit === 1 && word === 'least' ? 'a text that is not empty' : `at ${word} ${limit} characters`;
  if (issue.origin === 'array') return `at ${word} ${limit} ${limit === 1 ? 'entry' : 'entries'}`;
  if (issue.inclusive === false) return `a number ${word === 'least' ? 'above' : 'below'} ${limit}`;
  return `a number of at ${word} ${limit}`;
}

function expectation(issue: Issue, root: unknown, schema: z.core.$ZodType): string {
  switch (issue.code) {
    case 'invalid_type':
      return TYPE_NAMES[issue.expected] ?? issue.expected;
    case 'invalid_value':
      return issue.values.length === 1 ? describeValue(issue.values[0]) : `one of ${issue.values.map(String).join(', ')}`;
    case 'invalid_union': {
      // zod gives the discriminator's values where no option matched.
      const options = 'options' in issue && Array.isArray(issue.options) ? (issue.options as unknown[]).filter((option) => option !== undefined) : [];
      return options.length > 0 ? `one of ${options.map(String).join(', ')}` : issue.message;
    }
    case 'too_small':
      return bound(issue, 'least', issue.minimum);
    case 'too_big':
      return bound(issue, 'most', issue.maximum);
    case 'not_multiple_of':
      return `a multiple of ${issue.divisor}`;
    case 'invalid_format':
      return issue.format === 'url' ? 'a URL that starts with http:// or https://' : issue.message;
    case 'unrecognized_keys':
      return `one of the keys ${knownKeys(schema, issue.path, root).join(', ')}`;
    default:
      return issue.message;
  }
}

/** An unknown key is a problem of its own; custom issues bring their whole sentence. */
function problemsOf(issue: Issue, root: unknown, schema: z.core.$ZodType, lineOf: LineOf): SpecProblem[] {
  const at = (path: Path, expected: string, got: string): SpecProblem => {
    const line = lineOf(path);
    return { path: formatPath(path), expected, got, ...(line === undefined ? {} : { line }) };
  };
  if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => at([...issue.path, key], expectation(issue, root, schema), 'an unknown key'));
  if (issue.code === 'custom') {
    const [, expected = issue.message, got = describeValue(valueAt(root, issue.path))] = /^expected (.*), got (.*)$/s.exec(issue.message) ?? [];
    return [at(issue.path, expected, got)];
  }
  return [at(issue.path, expectation(issue, root, schema), describeValue(valueAt(root, issue.path)))];
}

function badInput(source: string, problems: readonly SpecProblem[]): StillhouseError {
  const lines = problems.map(({ path, expected, got, line }) => `${line === undefined ? '' : `line ${line}, `}${path === '' ? 'the whole of it' : path}: expected ${expected}, got ${got}`);
  const [only] = lines;
  const message = lines.length === 1 ? `${source}: ${only}` : `${source}: ${lines.length} problems\n${lines.map((line) => `  ${line}`).join('\n')}`;
  return new StillhouseError('BAD_INPUT', message, { details: { problems } });
}

export type LineOf = (path: Path) => number | undefined;

/**
 * Validates a value by any schema. BAD_INPUT lists, for each mistake, the key's path, what was
 * expected and what came; `source` says what the value is.
 */
export function validate<Schema extends z.ZodType>(schema: Schema, value: unknown, source: string, lineOf: LineOf = () => undefined): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw badInput(source, parsed.error.issues.flatMap((issue) => problemsOf(issue, value, schema, lineOf)));
}

/** Validates a spec that is an object already. */
export function validateSpec(value: unknown, source = 'spec', lineOf?: LineOf): CampaignSpec {
  return validate(campaignSpecSchema, value, source, lineOf);
}

/** Finds the line of a key, or of the nearest key above it that stands in the text. */
function lineFinder(document: Document, counter: LineCounter): LineOf {
  return (path) => {
    const parent = path.length === 0 ? undefined : path.length === 1 ? document.contents : document.getIn(path.slice(0, -1), true);
    const key = path.at(-1);
    const pair = isMap(parent) ? parent.items.find((item) => isScalar(item.key) && item.key.value === key) : undefined;
    const node = pair?.key ?? (path.length === 0 ? undefined : document.getIn(path, true));
    return isNode(node) && node.range != null ? counter.linePos(node.range[0]).line : undefined;
  };
}

export interface ParsedText {
  readonly value: unknown;
  readonly lineOf: LineOf;
}

/** Parses YAML 1.2, of which JSON is a part. `source` names the text in messages, as a file name does. */
export function parseText(text: string, source: string): ParsedText {
  const counter = new LineCounter();
  const document = parseDocument(text, { lineCounter: counter, prettyErrors: false });
  if (document.errors.length > 0) {
    throw badInput(source, document.errors.map((error) => ({ path: '', expected: 'YAML or JSON', got: error.message, line: counter.linePos(error.pos[0]).line })));
  }
  try {
    return { value: document.toJS({ maxAliasCount: 100 }), lineOf: lineFinder(document, counter) };
  } catch (error) {
    throw badInput(source, [{ path: '', expected: 'YAML whose aliases can be resolved', got: error instanceof Error ? error.message : String(error) }]);
  }
}

/** Parses and validates the text of a campaign file. */
export function parseSpec(text: string, source = 'spec'): CampaignSpec {
  const { value, lineOf } = parseText(text, source);
  return validateSpec(value, source, lineOf);
}
