/** What the teacher says of held-out rows: several draws of one row are put to the vote that makes training rows. */
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import type { Calibration, TeacherRequest } from '../contracts/records.ts';
import { agree } from '../dataset/agreement.ts';
import type { AnswerReader, ReadAnswer } from '../dataset/answers.ts';
import { candidatesOf } from '../dataset/candidates.ts';
import { chooseLabel } from '../dataset/labels.ts';

export interface TeacherOutput {
  /** Of a task with labels; null where no answer named one. */
  readonly label: string | null;
  readonly text: string;
}

interface Draw {
  readonly request: TeacherRequest;
  readonly answer: ReadAnswer;
}

function outputOf(spec: CampaignSpec, draws: readonly Draw[], calibration: Calibration | undefined): TeacherOutput {
  const { output } = spec.task;
  const [only] = draws;
  if (only !== undefined && draws.length === 1) {
    return { label: output.kind === 'label' ? (chooseLabel(only.answer, output.labels, calibration)?.label ?? null) : null, text: only.answer.text };
  }
  const { candidate, reason } = agree(spec, draws.flatMap(({ request, answer }) => candidatesOf(spec, 1, request, answer, calibration)));
  return { label: output.kind === 'label' && reason === undefined ? candidate.output : null, text: candidate.output };
}

/** By row id. */
export async function teacherOutputs(deps: { readonly answers: AnswerReader }, spec: CampaignSpec, requests: readonly TeacherRequest[], calibration?: Calibration): Promise<ReadonlyMap<string, TeacherOutput>> {
  const answers = await deps.answers(spec, requests);
  const draws = requests.map((request, index): Draw => ({ request, answer: answers[index] as ReadAnswer }));
  return new Map([...Map.groupBy(draws, ({ request }) => request.row?.id ?? request.id)].map(([id, own]) => [id, outputOf(spec, own, calibration)]));
}
