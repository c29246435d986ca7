/** Input/output pairs that a teacher writes from a task's description: the schema it is asked for, and how its answer is read. */
import { StillhouseError } from '../contracts/errors.ts';
import type { TaskSpec } from '../contracts/campaign-spec.ts';
import { findJson } from './json.ts';

export const PAIRS_SCHEMA_NAME = 'training_pairs';

export interface Pair {
  readonly input: string;
  readonly output: string;
  readonly rationale?: string;
}

/** JSON schema of `{ "pairs": [{ "input", "output" }, …] }`, strict in the sense of OpenAI's structured outputs; with a rationale, before its output. */
export function pairsSchema(task: TaskSpec, rationale = false): Readonly<Record<string, unknown>> {
  const output = task.output.kind === 'label' ? { type: 'string', enum: task.output.labels } : { type: 'string' };
  return {
    type: 'object',
    properties: {
      pairs: {
        type: 'array',
        items: {
          type: 'object',
          properties: { input: { type: 'string' }, ...(rationale ? { rationale: { type: 'string' } } : {}), output },
          required: rationale ? ['input', 'rationale', 'output'] : ['input', 'output'],
          additionalProperties: false,
        },
      },
    },
    required: ['pairs'],
    additionalProperties: false,
  };
}

export type ParsedPair = { readonly pair: Pair } | { readonly text: string; readonly problem: string };

/**
 * Reads a teacher's JSON text. A bare array, text around the document and extra keys are let pass;
 * anything else wrong with one pair is told of that pair alone. Throws BAD_INPUT when the text as a
 * whole is not such a document.
 */
export function parsePairs(text: string): readonly ParsedPair[] {
  const found = findJson(text);
  if ('problem' in found) throw new StillhouseError('BAD_INPUT', `expected a JSON document, got ${excerpt(text)}: ${found.problem}`);
  const document = found.value;
  const list = isRecord(document) ? document['pairs'] : document;
  if (!Array.isArray(list)) throw new StillhouseError('BAD_INPUT', `expected {"pairs": […]}, got ${excerpt(text)}`);
  return list.map((item: unknown): ParsedPair => {
    const source = JSON.stringify(item) ?? 'null';
    if (!isRecord(item)) return { text: source, problem: `expected an object with input and output, got ${excerpt(source)}` };
    const { input, output, rationale } = item;
    if (typeof input !== 'string') return { text: source, problem: `expected input to be a string, got ${excerpt(JSON.stringify(input) ?? 'nothing')}` };
    if (typeof output !== 'string') return { text: source, problem: `expected output to be a string, got ${excerpt(JSON.stringify(output) ?? 'nothing')}` };
    return { pair: { input, output, ...(typeof rationale === 'string' && rationale !== '' ? { rationale } : {}) } };
  });
}

/** The inputs of a teacher's JSON text, none where it cannot be read. */
export function writtenInputs(text: string): readonly string[] {
  try {
    return parsePairs(text).flatMap((item) => ('pair' in item ? [item.pair.input.trim()] : []));
  } catch (error) {
    if (error instanceof StillhouseError) return [];
    throw error;
  }
}

/** The start of a text, quoted, for messages. */
export function excerpt(text: string, length = 80): string {
  const characters = [...text];
  return JSON.stringify(characters.length > length ? `${characters.slice(0, length).join('')}…` : text);
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value);
