/** How the dataset and evaluation stages read what teachers and judges answered. */
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import type { TeacherAnswer, TeacherRequest } from '../contracts/records.ts';

/**
 * The recorded answers, in the order of the requests; never buys one. A request of purpose `judge`
 * is looked up under `spec.evaluation.scorer.judge`, every other under the teacher it was planned for. Fails with
 * NOT_FOUND, naming the first such request and how many there are, when answers are missing.
 */
export type AnswerReader = (spec: CampaignSpec, requests: readonly TeacherRequest[]) => Promise<readonly TeacherAnswer[]>;
