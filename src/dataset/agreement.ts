/** Several answers to one input made into one, with how far they agree. */
import type { CampaignSpec } from '../contracts/campaign-spec.ts';
import type { Judged } from './candidates.ts';
import { shinglesOf } from './near-duplicates.ts';
import { normaliseText } from './text.ts';

/**
 * Labels: the majority (self-consistency, Wang et al. 2022, §2); of equally frequent ones the one that
 * came first. Text: the answer most similar to all others, by the Jaccard similarity of character
 * trigrams; of equals the first. Confidence is the share of all answers that gave the label, or for
 * text the mean similarity of the chosen answer to the others. An answer that was turned away agrees
 * with none, and can be chosen only where all were.
 */
export function agree(spec: CampaignSpec, draws: readonly Judged[]): Judged {
  const [first] = draws;
  if (first === undefined) throw new TypeError('expected one answer or more, got none');
  if (draws.length === 1) return first;
  const usable = draws.filter(({ reason }) => reason === undefined);
  if (usable.length === 0) return { ...first, detail: `${first.detail ?? ''} (the first of ${draws.length} answers, none of which can be used)` };
  const { chosen, agreement } = spec.task.output.kind === 'label' ? majority(usable, draws.length) : mostCentral(usable, draws.length);
  return { candidate: { ...chosen.candidate, confidence: Math.round(agreement * 1e6) / 1e6 } };
}

interface Choice {
  readonly chosen: Judged;
  /** 0…1. */
  readonly agreement: number;
}

function majority(usable: readonly Judged[], asked: number): Choice {
  // Groups come in the order of their first member, so that a tie goes to what was said first.
  const votes = [...Map.groupBy(usable, ({ candidate }) => candidate.output).values()];
  const winners = votes.reduce((best, group) => (group.length > best.length ? group : best));
  return { chosen: winners[0] as Judged, agreement: winners.length / asked };
}

function mostCentral(usable: readonly Judged[], asked: number): Choice {
  const texts = usable.map(({ candidate }) => normaliseText(candidate.output));
  const shingles = texts.map((text) => shinglesOf(text));
  let best: { readonly index: number; readonly total: number } = { index: 0, total: -1 };
  for (const [index, own] of shingles.entries()) {
    const total = shingles.reduce((sum, other, at) => (at === index ? sum : sum + (texts[at] === texts[index] ? 1 : jaccard(own, other))), 0);
    if (total > best.total) best = { index, total };
  }
  return { chosen: usable[best.index] as Judged, agreement: best.total / (asked - 1) };
}

function jaccard(a: ReadonlySet<number>, b: ReadonlySet<number>): number {
  let shared = 0;
  for (const shingle of a) if (b.has(shingle)) shared += 1;
  const all = a.size + b.size - shared;
  return all === 0 ? 1 : shared / all;
}
