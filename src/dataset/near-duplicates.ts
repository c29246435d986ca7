/**
 * Near duplicates by MinHash and locality-sensitive hashing over character shingles (Broder 1997;
 * Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", ch. 3). Candidates are verified by the
 * exact Jaccard similarity of their shingle sets, so a match is never a hash accident; a pair at the
 * threshold is missed with a probability below MISS_PROBABILITY. Shingles are of characters, not
 * words, so that Chinese and Japanese work as they are.
 */
import { normaliseText } from './text.ts';

const HASHES = 128;
const MISS_PROBABILITY = 1e-3;
const SHINGLE_CHARACTERS = 3;

export interface NearMatch {
  readonly id: string;
  /** Jaccard similarity of the two shingle sets, from the index's threshold to 1. */
  readonly similarity: number;
}

interface Entry {
  readonly id: string;
  readonly shingles: ReadonlySet<number>;
}

/** Grows row by row: memory is proportional to the texts added, queries touch candidates only. */
export class NearDuplicateIndex {
  readonly #similarity: number;
  readonly #rowsPerBand: number;
  readonly #bands: readonly Map<number, number[]>[];
  readonly #entries: Entry[] = [];

  /** @param similarity Jaccard threshold in (0, 1]. */
  constructor(similarity: number) {
    this.#similarity = similarity;
    this.#rowsPerBand = rowsPerBand(similarity);
    this.#bands = Array.from({ length: Math.floor(HASHES / this.#rowsPerBand) }, () => new Map<number, number[]>());
  }

  get size(): number {
    return this.#entries.length;
  }

  /** The most similar text added so far, at or above the threshold; of equals the one added first. */
  find(text: string): NearMatch | undefined {
    const shingles = shinglesOf(text);
    return this.#search(shingles, bandKeys(shingles, this.#rowsPerBand));
  }

  add(id: string, text: string): void {
    const shingles = shinglesOf(text);
    this.#insert(id, shingles, bandKeys(shingles, this.#rowsPerBand));
  }

  /** Adds the text unless something like it is there, and says what. */
  addIfNew(id: string, text: string): NearMatch | undefined {
    const shingles = shinglesOf(text);
    const keys = bandKeys(shingles, this.#rowsPerBand);
    const match = this.#search(shingles, keys);
    if (match === undefined) this.#insert(id, shingles, keys);
    return match;
  }

  #search(shingles: ReadonlySet<number>, keys: Uint32Array): NearMatch | undefined {
    const candidates = new Set<number>();
    this.#bands.forEach((band, index) => {
      for (const entry of band.get(keys[index] as number) ?? []) candidates.add(entry);
    });
    let best: { readonly index: number; readonly similarity: number } | undefined;
    for (const index of candidates) {
      const similarity = jaccard(shingles, (this.#entries[index] as Entry).shingles);
      if (similarity < this.#similarity) continue;
      if (best === undefined || similarity > best.similarity || (similarity === best.similarity && index < best.index)) best = { index, similarity };
    }
    return best === undefined ? undefined : { id: (this.#entries[best.index] as Entry).id, similarity: best.similarity };
  }

  #insert(id: string, shingles: ReadonlySet<number>, keys: Uint32Array): void {
    const index = this.#entries.push({ id, shingles }) - 1;
    this.#bands.forEach((band, position) => {
      const key = keys[position] as number;
      const bucket = band.get(key);
      if (bucket === undefined) band.set(key, [index]);
      else bucket.push(index);
    });
  }
}

/** The longest bands, hence the fewest candidates, that still find a pair at the threshold: (1 − sʳ)ᵇ is the chance to miss it. */
function rowsPerBand(similarity: number): number {
  for (let rows = HASHES; rows > 1; rows -= 1) {
    if ((1 - similarity ** rows) ** Math.floor(HASHES / rows) <= MISS_PROBABILITY) return rows;
  }
  return 1;
}

/** 32-bit hashes of the distinct shingles; a text shorter than a shingle is one shingle. */
export function shinglesOf(text: string): ReadonlySet<number> {
  const characters = [...normaliseText(text)].map((character) => character.codePointAt(0) as number);
  const shingles = new Set<number>();
  const last = Math.max(0, characters.length - SHINGLE_CHARACTERS);
  for (let start = 0; start <= last; start += 1) {
    let hash = 0x811c_9dc5;
    for (let offset = start; offset < Math.min(start + SHINGLE_CHARACTERS, characters.length); offset += 1) {
      hash = Math.imul(hash ^ (characters[offset] as number), 0x0100_0193);
    }
    shingles.add(mix(hash));
  }
  return shingles;
}

export function jaccard(left: ReadonlySet<number>, right: ReadonlySet<number>): number {
  const [small, large] = left.size <= right.size ? [left, right] : [right, left];
  let shared = 0;
  for (const shingle of small) if (large.has(shingle)) shared += 1;
  return shared / (left.size + right.size - shared);
}

/** One key a band: the MinHash values of its rows folded into 32 bits. */
function bandKeys(shingles: ReadonlySet<number>, rows: number): Uint32Array {
  const bands = Math.floor(HASHES / rows);
  const minima = new Uint32Array(bands * rows).fill(0xffff_ffff);
  for (const shingle of shingles) {
    for (let hash = 0; hash < minima.length; hash += 1) {
      const value = mix(shingle ^ (SEEDS[hash] as number));
      if (value < (minima[hash] as number)) minima[hash] = value;
    }
  }
  const keys = new Uint32Array(bands);
  for (let band = 0; band < bands; band += 1) {
    let key = 0x811c_9dc5;
    for (let row = 0; row < rows; row += 1) key = mix(Math.imul(key, 0x0100_0193) ^ (minima[band * rows + row] as number));
    keys[band] = key;
  }
  return keys;
}

/** MurmurHash3's 32-bit finaliser: a bijection, so distinct shingles keep distinct hashes. */
function mix(value: number): number {
  let hash = value;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

const SEEDS = Uint32Array.from({ length: HASHES }, (_, index) => mix(Math.imul(index + 1, 0x9e37_79b9)));
