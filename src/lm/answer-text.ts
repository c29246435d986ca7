/** The text of an answer as its tokens come: pieces that are certain, cut before the first stop string. */
import type { ChatTokenizer } from './tokenizer.ts';

/** What a decoder writes for bytes that are no whole character yet. */
const INCOMPLETE = '\uFFFD';
/** Tokens that are decoded again with new ones: bounds the work of a step. */
const WINDOW_TOKENS = 16;

/** How much of the end of `text` could be the beginning of one of `stops`. */
function heldBack(text: string, stops: readonly string[]): number {
  let longest = 0;
  for (const stop of stops) {
    for (let length = Math.min(stop.length - 1, text.length); length > longest; length -= 1) {
      if (text.endsWith(stop.slice(0, length))) longest = length;
    }
  }
  return longest;
}

export class AnswerText {
  readonly #tokenizer: Pick<ChatTokenizer, 'decode'>;
  readonly #stops: readonly string[];
  readonly #onPiece: (piece: string) => void;
  /** The newest tokens, from a boundary of characters on, and the text of those before the window's last part. */
  #window: number[] = [];
  #settled = '';
  #told = 0;
  #text = '';

  constructor(tokenizer: Pick<ChatTokenizer, 'decode'>, stops: readonly string[], onPiece: (piece: string) => void) {
    this.#tokenizer = tokenizer;
    this.#stops = stops;
    this.#onPiece = onPiece;
  }

  /** True when a stop string has come: the text ends before it. */
  add(token: number): boolean {
    this.#window.push(token);
    const decoded = this.#tokenizer.decode(this.#window);
    this.#text = this.#settled + decoded;
    const ends = this.#stops.map((stop) => this.#text.indexOf(stop)).filter((at) => at >= 0);
    if (ends.length > 0) {
      this.#text = this.#text.slice(0, Math.min(...ends));
      return true;
    }
    if (decoded.endsWith(INCOMPLETE)) return false;
    this.#tell(this.#text.length - heldBack(this.#text, this.#stops));
    if (this.#window.length >= WINDOW_TOKENS) this.#settle();
    return false;
  }

  /** The whole text; what was held back is told. */
  end(): string {
    this.#tell(this.#text.length);
    return this.#text;
  }

  /** Leaves the last token in the window: decoders treat the first of a sequence differently. */
  #settle(): void {
    const last = this.#window.slice(-1);
    const rest = this.#tokenizer.decode(last);
    if (rest === '' || !this.#text.endsWith(rest) || rest.includes(INCOMPLETE)) return;
    this.#settled = this.#text.slice(0, this.#text.length - rest.length);
    this.#window = last;
  }

  #tell(until: number): void {
    if (until <= this.#told) return;
    this.#onPiece(this.#text.slice(this.#told, until));
    this.#told = until;
  }
}
