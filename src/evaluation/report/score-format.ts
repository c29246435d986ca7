/** How a report shows scores: accuracy as a percentage, a judge's score as the judge gave it. */
import type { CampaignSpec } from '../../contracts/campaign-spec.ts';
import { judgedScore, scoreShare } from '../judge-score.ts';
import { percent } from './markup.ts';
import { niceTicks } from './plots.ts';

/** Scores are given 0…1. */
export interface ScoreFormat {
  readonly name: string;
  readonly format: (score: number) => string;
  /** A difference of two scores. */
  readonly difference: (difference: number) => string;
  /** Scores at which an axis has a mark, and the mark. */
  readonly ticks: (low: number, high: number, wanted: number) => readonly number[];
  readonly tick: (score: number) => string;
}

const ACCURACY: ScoreFormat = {
  name: 'accuracy',
  format: (score) => percent(score),
  difference: (difference) => percent(difference),
  ticks: niceTicks,
  tick: (score) => percent(score, Number.isInteger(Math.round(score * 1e6) / 1e4) ? 0 : 1),
};

const JUDGED: ScoreFormat = {
  name: 'judge’s score, 1 to 10',
  format: (score) => judgedScore(score).toFixed(2),
  difference: (difference) => (judgedScore(difference) - judgedScore(0)).toFixed(2),
  ticks: (low, high, wanted) => niceTicks(judgedScore(low), judgedScore(high), wanted).map(scoreShare),
  tick: (score) => String(Math.round(judgedScore(score) * 1e3) / 1e3),
};

export const scoreFormat = ({ evaluation }: CampaignSpec): ScoreFormat => (evaluation.scorer.kind === 'label' ? ACCURACY : JUDGED);
