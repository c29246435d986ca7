/**
 * Distributions that came with the answers: an endpoint's likeliest tokens as text (src/dataset/soft-targets.ts), found again
 * among the student's own tokens. It must be a model of the student's vocabulary that wrote them: token by token the same text.
 */
import { StillhouseError } from '../../contracts/errors.ts';
import type { Sample } from '../../contracts/records.ts';
import { unpackSoftTargets } from '../../dataset/soft-targets.ts';
import type { SoftTarget, TokenLogProb } from '../../dataset/soft-targets.ts';
import type { ChatTokenizer } from '../../lm/tokenizer.ts';
import type { TrainingSample } from '../packing.ts';
import { requireFitting, targetValues } from './stored.ts';
import type { StoredTargets } from './stored.ts';
import type { TopK } from './top-k.ts';

/** In place of the logarithm of no probability: finite, and nothing at any temperature. */
const NEVER = -1e4;

type IdOf = (token: TokenLogProb) => number | undefined;
interface Listed {
  readonly id: number;
  readonly logProb: number;
}

/** `rows`: the dataset as JSONL, `samples`: the same as the student reads it. At most `topK` tokens are taken, and as many of all positions. */
export function givenTargets(input: { readonly rows: string; readonly samples: readonly TrainingSample[]; readonly tokenizer: ChatTokenizer; readonly topK: number }): StoredTargets {
  const { samples, tokenizer } = input;
  const packed = input.rows.split('\n').filter((line) => line !== '').map((line) => (JSON.parse(line) as Pick<Sample, 'softTargets'>).softTargets);
  const without = packed.flatMap((targets, i) => (targets === undefined ? [samples[i]?.id] : []));
  if (without.length > 0) throw new StillhouseError('BAD_INPUT', `dataset, row ${without[0]}: expected soft targets with the answer, as an endpoint gives them (sampling.softTargets), or training.teacher to make them with, got neither in ${without.length} of ${packed.length} rows`);
  const idOf = idsByText(tokenizer);
  const positions = new Map(samples.map((sample, i) => [sample, listedOf(sample, unpackSoftTargets(packed[i] as string), tokenizer, idOf)]));
  const fewest = [...positions.values()].flat().reduce((least, listed) => (listed === undefined ? least : Math.min(least, listed.length)), input.topK);
  const distributions = (sample: TrainingSample): readonly TopK[] => (positions.get(sample) ?? []).map((listed, i) => (listed === undefined ? certain(sample.ids[sample.responseStart + i] as number, fewest) : likeliest(listed, fewest)));
  return {
    source: { kind: 'top-k', k: fewest },
    check: (minMass) => samples.forEach((sample) => requireFitting(sample, sample.ids.slice(sample.responseStart), distributions(sample), minMass)),
    valuesOf: (sample) => targetValues(distributions(sample), fewest),
  };
}

const keyOf = (bytes: ArrayLike<number>): string => Buffer.from(Array.from(bytes)).toString('latin1');

/** The lowest id of each text. */
function idsByText(tokenizer: ChatTokenizer): IdOf {
  const ids = new Map<string, number>();
  for (let id = tokenizer.tokens.length - 1; id >= 0; id -= 1) ids.set(keyOf(tokenizer.tokenBytes(id)), id);
  return ({ token, bytes }) => ids.get(keyOf(bytes ?? Buffer.from(token, 'utf8')));
}

/** At each learned token what was listed there, the likeliest first; undefined at the end of an answer that came without its end. */
function listedOf(sample: TrainingSample, given: readonly SoftTarget[], tokenizer: ChatTokenizer, idOf: IdOf): readonly (readonly Listed[] | undefined)[] {
  const answer = sample.ids.slice(sample.responseStart);
  // The dataset's answers are trimmed.
  const isBlank = ({ token }: TokenLogProb): boolean => token.trim() === '';
  const from = given.findIndex((target) => !isBlank(target));
  const to = given.findLastIndex((target) => !isBlank(target)) + 1;
  const written = from < 0 ? [] : given.slice(from, to);
  const [content, ends] = [answer.slice(0, -1), written.length === answer.length];
  const differs = (ends ? answer : content).findIndex((id, i) => written[i] === undefined || keyOf(tokenizer.tokenBytes(id)) !== keyOf(written[i].bytes ?? Buffer.from(written[i].token, 'utf8')));
  if (differs >= 0 || (!ends && written.length !== content.length)) {
    const at = differs >= 0 ? differs : content.length;
    throw new StillhouseError(
      'BAD_INPUT',
      `dataset, row ${sample.id}: expected an answer in the student's own tokens, which soft targets are compared by, got ${JSON.stringify(written[at]?.token ?? '')} at position ${at} where the student reads ${JSON.stringify(tokenizer.tokenText(answer[at] as number))}; take a teacher of the student's family`,
    );
  }
  const listed = written.map((target): readonly Listed[] => {
    const all = target.alternatives.some(({ token }) => token === target.token) ? target.alternatives : [...target.alternatives, target];
    const known = all.flatMap((each): Listed[] => {
      const id = idOf(each);
      return id === undefined ? [] : [{ id, logProb: each.logProb }];
    });
    // A text that two ids have counts once.
    return [...new Map(known.toSorted((a, b) => a.logProb - b.logProb).map((each) => [each.id, each])).values()].toSorted((a, b) => b.logProb - a.logProb);
  });
  return ends ? listed : [...listed, undefined];
}

/** The first k, scaled down where rounding made them more than 1 in all. */
function likeliest(listed: readonly Listed[], k: number): TopK {
  const kept = listed.slice(0, k);
  const mass = kept.reduce((sum, { logProb }) => sum + Math.exp(logProb), 0);
  const excess = Math.log(Math.max(1, mass));
  return { ids: Uint32Array.from(kept, ({ id }) => id), logProbs: Float64Array.from(kept, ({ logProb }) => logProb - excess), tailMass: Math.max(0, 1 - mass) };
}

/** All of the mass on one token. */
function certain(id: number, k: number): TopK {
  const ids = [id, ...Array.from({ length: k }, (_, other) => other).filter((other) => other !== id)].slice(0, k);
  return { ids: Uint32Array.from(ids), logProbs: Float64Array.from(ids, (each) => (each === id ? 0 : NEVER)), tailMass: 0 };
}
