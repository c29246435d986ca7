/** From a teacher's answer to candidate rows, or to the reason why it gives none. */
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import { StillhouseError } from '../contracts/errors.ts';
import type { Calibration, RejectionReason, TeacherAnswer, TeacherRequest } from '../contracts/records.ts';
import { codeProblem } from './code.ts';
import { chooseLabel } from './labels.ts';
import { excerpt, parsePairs } from './pairs.ts';
import { rowId } from './text.ts';

export interface Candidate {
  readonly id: string;
  readonly input: string;
  readonly output: string;
  readonly rationale?: string;
  readonly confidence?: number;
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

/** Openings of answers that decline. A model that refuses in words still reports `stop`. */
const REFUSALS = [
  /^(?:i['’]?m|i am) (?:very )?sorry,? (?:but )?(?:i|as an)\b/i,
  /^sorry,? (?:but )?i (?:can['’]?t|cannot|am unable|am not able)\b/i,
  /^(?:i can['’]?t|i cannot|i am unable to|i['’]m unable to|i['’]m not able to) (?:help|assist|comply|provide|fulfil|do that)/i,
  /^(?:很?抱歉|对不起)[,，。]?.{0,12}(?:无法|不能|没办法)/u,
];

/** Every candidate of one answer: one for an input, several where the teacher writes pairs. */
export function candidatesOf(spec: CampaignSpec, round: number, request: TeacherRequest, answer: TeacherAnswer, calibration?: Calibration): readonly Judged[] {
  const row = request.row;
  const whole: Candidate = {
    id: row?.id ?? request.id, input: row?.input ?? '', output: answer.text, round, origin: row?.origin ?? `${answer.model}, ${request.id}`, requestId: request.id,
  };
  if (answer.finishReason === 'refusal' || answer.finishReason === 'content_filter') return [{ candidate: whole, reason: 'refusal', detail: `finish reason ${answer.finishReason}` }];
  if (row === undefined) return pairCandidates(spec, whole, answer);
  const { output } = spec.task;
  if (output.kind === 'label') {
    const choice = chooseLabel(answer, output.labels, calibration);
    if (choice !== undefined) {
      return [{ candidate: { ...whole, output: choice.label, ...(choice.confidence === undefined ? {} : { confidence: roundTo6(choice.confidence) }) } }];
    }
  }
  if (answer.finishReason === 'length') return [{ candidate: whole, reason: 'truncated', detail: `cut after ${answer.usage.completionTokens} tokens` }];
  const text = { ...whole, output: answer.text.trim() };
  return [{ candidate: text, ...textProblem(spec, text.output) }];
}

function pairCandidates(spec: CampaignSpec, whole: Candidate, answer: TeacherAnswer): readonly Judged[] {
  let parsed;
  try {
    parsed = parsePairs(answer.text);
  } catch (error) {
    if (!(error instanceof StillhouseError)) throw error;
    if (answer.finishReason === 'length') return [{ candidate: whole, reason: 'truncated', detail: `cut after ${answer.usage.completionTokens} tokens` }];
    return [{ candidate: whole, reason: REFUSALS.some((pattern) => pattern.test(answer.text.trim())) ? 'refusal' : 'schema', detail: error.message }];
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
  if (REFUSALS.some((pattern) => pattern.test(text))) return { reason: 'refusal', detail: `declines: ${excerpt(text)}` };
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
