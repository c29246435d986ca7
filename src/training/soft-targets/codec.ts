/**
 * One position in few bytes: the token that was written, and the distribution it was drawn from. Layout, in bits:
 *
 *    1  1 where the written token is one of the k, then its index in ceil(log2 k) bits;
 *       0 where it is not, then its id in ceil(log2 V) bits
 *   32  tail mass, float32
 *    4  a: parameter of the limited Rice code of the levels
 *    1  the code of the gaps: 0 Rice, for ids that lie evenly; 1 exponential Golomb, for ids that crowd, as real ones do
 *    5  b: its parameter
 *   16  highest level
 *   then k times, by ascending id:
 *       Gap(b)          gap to the id before, less one; of the first the id itself
 *       LimitedRice(a)  highest level − level: Rice below 12 · 2^a, else 12 ones and 16 bits
 *
 * A level is −log p in steps of 1/1024 nat up to 2 nats, 1/64 up to 5, 1/8 beyond: what carries the mass
 * is kept fine, what adds up to little is kept coarse. Decoded probabilities are scaled so that they
 * and the tail mass sum to 1.
 */
import { StillhouseError } from '../../contracts/errors.ts';
import { expGolombBits, limitedRiceBits, riceBits } from './bits.ts';
import type { BitReader, BitWriter } from './bits.ts';
import type { TopK } from './top-k.ts';

/** Nats from which a step applies, the level there, and levels a nat. */
const STEPS = [
  { fromNats: 5, level: 2_240, perNat: 8 },
  { fromNats: 2, level: 2_048, perNat: 64 },
  { fromNats: 0, level: 0, perNat: 1_024 },
] as const;
const LEVEL_BITS = 16;
/** −log p of 7,900 nats and more, which float32 logits hardly reach. */
const HIGHEST_LEVEL = 2 ** LEVEL_BITS - 1;
const ORDER_BITS = 4;
const GAP_BITS = 5;

function levelOf(logProb: number): number {
  const nats = Math.max(0, -logProb);
  const { fromNats, level, perNat } = STEPS.find((step) => nats >= step.fromNats) ?? STEPS[2];
  return Math.min(HIGHEST_LEVEL, level + Math.round((nats - fromNats) * perNat));
}

function natsOf(level: number): number {
  const { fromNats, level: from, perNat } = STEPS.find((step) => level >= step.level) ?? STEPS[2];
  return fromNats + (level - from) / perNat;
}

/** The parameter with which a code takes the fewest bits, and how many. */
function cheapest(values: readonly number[], bitsOf: (value: number, parameter: number) => number, parameters: number): { readonly parameter: number; readonly bits: number } {
  let best = 0;
  let least = Infinity;
  for (let parameter = 0; parameter < parameters; parameter += 1) {
    let bits = 0;
    for (const value of values) bits += bitsOf(value, parameter);
    if (bits < least) [best, least] = [parameter, bits];
  }
  return { parameter: best, bits: least };
}

const float = new DataView(new ArrayBuffer(4));

/** Bits that whole numbers below `count` need. */
const widthOf = (count: number): number => 32 - Math.clz32(count - 1);

export function writePosition(out: BitWriter, token: number, { ids, logProbs, tailMass }: TopK, vocabularySize: number): void {
  const listed = ids.indexOf(token);
  out.write(listed < 0 ? 0 : 1, 1);
  if (listed < 0) out.write(token, widthOf(vocabularySize));
  else out.write(listed, widthOf(ids.length));
  const levels = Array.from(logProbs, levelOf);
  const highest = levels.reduce((most, level) => Math.max(most, level), 0);
  const depths = levels.map((level) => highest - level);
  const gaps = Array.from(ids, (id, index) => (index === 0 ? id : id - (ids[index - 1] as number) - 1));
  const { parameter: order } = cheapest(depths, (value, k) => limitedRiceBits(value, k, LEVEL_BITS), 2 ** ORDER_BITS);
  const width = widthOf(vocabularySize) + 1;
  const [even, crowded] = [cheapest(gaps, riceBits, width), cheapest(gaps, expGolombBits, width)];
  const crowds = crowded.bits < even.bits;
  const { parameter } = crowds ? crowded : even;
  float.setFloat32(0, tailMass);
  out.write(float.getUint32(0), 32);
  out.write(order, ORDER_BITS);
  out.write(crowds ? 1 : 0, 1);
  out.write(parameter, GAP_BITS);
  out.write(highest, LEVEL_BITS);
  for (const [index, gap] of gaps.entries()) {
    if (crowds) out.expGolomb(gap, parameter);
    else out.rice(gap, parameter);
    out.limitedRice(depths[index] as number, order, LEVEL_BITS);
  }
}

export interface Position {
  /** The token that was written. */
  readonly token: number;
  readonly distribution: TopK;
}

/** CORRUPT when the bits are not k tokens of a vocabulary of this size. */
export function readPosition(from: BitReader, k: number, vocabularySize: number): Position {
  const isListed = from.read(1) === 1;
  const written = from.read(widthOf(isListed ? k : vocabularySize));
  float.setUint32(0, from.read(32));
  const tailMass = float.getFloat32(0);
  const order = from.read(ORDER_BITS);
  const crowds = from.read(1) === 1;
  const parameter = from.read(GAP_BITS);
  const highest = from.read(LEVEL_BITS);
  const ids = new Uint32Array(k);
  const logProbs = new Float64Array(k);
  let before = -1;
  let listed = 0;
  for (let index = 0; index < k; index += 1) {
    before += 1 + (crowds ? from.expGolomb(parameter) : from.rice(parameter));
    ids[index] = before;
    const depth = from.limitedRice(order, LEVEL_BITS);
    if (depth > highest || before >= vocabularySize) throw new StillhouseError('CORRUPT', `expected soft targets of ${k} tokens below ${vocabularySize}, got token ${before}, ${depth} levels below ${highest}`);
    const logProb = -natsOf(highest - depth);
    logProbs[index] = logProb;
    listed += Math.exp(logProb);
  }
  const scale = Math.log1p(-tailMass) - Math.log(listed);
  for (let index = 0; index < k; index += 1) logProbs[index] = (logProbs[index] as number) + scale;
  const token = isListed ? ids[written] : written;
  if (token === undefined) throw new StillhouseError('CORRUPT', `expected the written token among ${k}, got number ${written}`);
  return { token, distribution: { ids, logProbs, tailMass } };
}
