/** From a teacher's answer to candidate rows, or to the reason why it gives none. */
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { Calibration, RejectionReason, TeacherRequest } from '../contracts/records.ts';
import type { ReadAnswer } from './answers.ts';
import { codeProblem } from './code.ts';
import { chooseLabel } from './labels.ts';
import { excerpt, parsePairs } from './pairs.ts';
import { declines } from './refusals.ts';
import { rowId } from './text.ts';

export interface Candidate {
  readonly id: string;
  readonly input: string;
  readonly output: string;
  readonly rationale?: string;
  readonly confidence?: number;
  readonly softTargets?: string;
  readonly round: number;
  readonly origin: string;
  readonly requestId: string;
}

/** A candidate, with what speaks against it where something does. */
export interface Judged {
  readonly candidate: Candidate;
  readonly reason?: RejectionReason;
  readonly detail?: string;
}

/** Every candidate of one answer: one for an input, several where the teacher writes pairs. */
export function candidatesOf(spec: CampaignSpec, round: number, request: TeacherRequest, answer: ReadAnswer, calibration?: Calibration): readonly Judged[] {
  const row = request.row;
  const whole: Candidate = {
    id: row?.id ?? request.id, input: row?.input ?? '', output: answer.text, round, origin: row?.origin ?? `${answer.model}, ${request.id}`, requestId: request.id,
    ...rationaleOf(spec, answer),
    ...(answer.softTargets === undefined ? {} : { softTargets: answer.softTargets }),
  };
  const none = noAnswer(answer);
  if (none !== undefined) return [{ candidate: whole, ...none }];
  if (row === undefined) return pairCandidates(spec, whole, answer);
  if (answer.problem !== undefined) return [{ candidate: whole, ...brokenForm(answer) }];
  const { output } = spec.task;
  if (output.kind === 'label') {
    // Several draws are counted as they were written: the log-probabilities of all of them say the same.
    const choice = chooseLabel(spec.sampling.answersPerInput > 1 ? { text: answer.text } : answer, output.labels, calibration);
    if (choice !== undefined) {
      return [{ candidate: { ...whole, output: choice.label, ...(choice.confidence === undefined ? {} : { confidence: roundTo6(choice.confidence) }) } }];
    }
  }
  if (answer.finishReason === 'length') return [{ candidate: whole, reason: 'truncated', detail: answer.note ?? `cut after ${answer.usage.completionTokens} tokens` }];
  const text = { ...whole, output: answer.text.trim() };
  return [{ candidate: text, ...textProblem(spec, text.output) }];
}

/** Why the provider gave none, in its own words where it had some. */
function noAnswer({ finishReason, note }: ReadAnswer): { readonly reason: RejectionReason; readonly detail: string } | undefined {
  switch (finishReason) {
    case 'refusal':
    case 'content_filter':
      return { reason: 'refusal', detail: note ?? `finish reason ${finishReason}` };
    case 'rejected':
      return { reason: 'rejected', detail: note ?? 'the provider would not take the question' };
    case 'error':
      return { reason: 'unreadable', detail: note ?? 'what came was no whole answer' };
    default:
      return undefined;
  }
}

/** What was asked for beside the answer, else what the model reasoned by itself, where the spec takes that. */
function rationaleOf({ sampling }: CampaignSpec, { rationale, reasoning }: ReadAnswer): Pick<Candidate, 'rationale'> {
  const given = rationale ?? (sampling.rationale === 'reasoning' ? reasoning : undefined);
  return given === undefined ? {} : { rationale: given };
}

/** Why an answer that is no JSON of its schema gives nothing. */
function brokenForm(answer: ReadAnswer): { readonly reason: RejectionReason; readonly detail: string } {
  if (declines(answer.text)) return { reason: 'refusal', detail: `declines: ${excerpt(answer.text)}` };
  return { reason: answer.finishReason === 'length' ? 'truncated' : 'schema', detail: `${answer.problem ?? 'no JSON'}, got ${excerpt(answer.text)}` };
}

function pairCandidates(spec: CampaignSpec, whole: Candidate, answer: ReadAnswer): readonly Judged[] {
  let parsed;
  try {
    parsed = parsePairs(answer.text);
  } catch (error) {
    if (!(error instanceof StillhouseError)) throw error;
    return [{ candidate: whole, ...brokenForm({ ...answer, problem: answer.problem ?? error.message }) }];
  }
  if (parsed.length === 0) return [{ candidate: whole, reason: 'schema', detail: 'expected at least one pair, got none' }];
  return parsed.map((item, index): Judged => {
    const origin = `${whole.origin}, pair ${index + 1}`;
    if ('problem' in item) return { candidate: { ...whole, id: `${whole.id}-${index + 1}`, output: item.text, origin }, reason: 'schema', detail: item.problem };
    const { pair } = item;
    const input = pair.input.trim();
    const candidate: Candidate = { ...whole, id: rowId(input), input, output: pair.output.trim(), origin, ...(pair.rationale === undefined ? {} : { rationale: pair.rationale }) };
    if (spec.task.output.kind !== 'label') return { candidate, ...textProblem(spec, candidate.output) };
    const choice = chooseLabel({ text: pair.output }, spec.task.output.labels);
    return choice === undefined ? { candidate, ...textProblem(spec, candidate.output) } : { candidate: { ...candidate, output: choice.label } };
  });
}

/** What is wrong with an output that is no label. */
function textProblem(spec: CampaignSpec, text: string): { readonly reason?: RejectionReason; readonly detail?: string } {
  const { output } = spec.task;
  if (text === '') return { reason: 'empty', detail: 'expected an output, got none' };
  if (declines(text)) return { reason: 'refusal', detail: `declines: ${excerpt(text)}` };
  switch (output.kind) {
    case 'label':
      return { reason: 'unknown-label', detail: `expected one of ${output.labels.join(', ')}, got ${excerpt(text)}` };
    case 'text':
      return {};
    case 'code': {
      const problem = codeProblem(text, output.language);
      return problem === undefined ? {} : { reason: 'does-not-parse', detail: problem };
    }
  }
}

/** Six decimals: enough to rank by, and no bits that differ between mathematics libraries. */
const roundTo6 = (value: number): number => Math.round(value * 1e6) / 1e6;
