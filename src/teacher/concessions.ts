/**
 * One question's way through refusals: what is given up for it, form by form, until the endpoint takes it. Refused calls
 * cost nothing. What has helped is learned; what has not is taken back.
 */
import { isDeepStrictEqual } from 'node:util';
import type { TeacherRequest } from '../contracts/records.ts';
import { BLIND_ORDER, FEATURES, joinChanges } from './endpoint-traits.ts';
import type { EndpointTraits, Feature, TraitChange } from './endpoint-traits.ts';
import { chatBody, schemaOf } from './openai-chat.ts';
import type { Lesson } from './trait-book.ts';

/** Statuses under which a server refuses a form, and those under which some do so in words. */
const REFUSALS = new Set([400, 404, 405, 406, 415, 422, 501]);
const REFUSALS_IN_WORDS = new Set([403, 500]);
const REFUSING = /not (?:supported?|available|allowed|permitted|implemented|enabled)|n['o]t support|unsupported|unknown|unrecogni[sz]ed|unexpected|forbidden|invalid|extra|must be|cannot/i;
/** No server refuses so often. */
const MAX_CONCESSIONS = 32;

const NO_WORDS = 'refused without a word about why; taken without it';

export class Concessions {
  readonly #request: TeacherRequest;
  readonly #base: EndpointTraits;
  #lessons: readonly Lesson[] = [];
  #count = 0;
  /** Ways to go on where no feature is named: each given up alone, then one after the other together. */
  #blind: TraitChange[] | undefined;

  constructor(request: TeacherRequest, base: EndpointTraits) {
    this.#request = request;
    this.#base = base;
  }

  get traits(): EndpointTraits {
    return this.#lessons.reduce<EndpointTraits>((traits, { change }) => ({ ...traits, ...change }), this.#base);
  }

  get lessons(): readonly Lesson[] {
    return this.#lessons;
  }

  /**
   * True when the next attempt asks in another form. `proven`: questions of this kind have been answered in the form as it
   * was, so that a refusal that names no feature is about this question.
   */
  concede(status: number, words: string, proven: boolean): boolean {
    this.#count += 1;
    if (this.#count > MAX_CONCESSIONS) return false;
    const inWords = REFUSALS_IN_WORDS.has(status) && REFUSING.test(words);
    if (!REFUSALS.has(status) && !inWords) return false;
    const named = this.#named(words);
    if (named !== undefined) {
      this.#lessons = [...this.#lessons, { change: named, words: words.trim() }];
      return true;
    }
    if (proven || inWords || status === 404) return false;
    this.#blind ??= this.#blindly();
    const change = this.#blind.shift();
    this.#lessons = change === undefined ? [] : [{ change, words: NO_WORDS }];
    return change !== undefined;
  }

  /** The next weaker form of a feature that the words name and the question uses. */
  #named(words: string): TraitChange | undefined {
    for (const feature of FEATURES) {
      const change = feature.named.test(words) ? this.#weaker(feature, this.traits, words) : undefined;
      if (change !== undefined) return change;
    }
    return undefined;
  }

  #weaker(feature: Feature, traits: EndpointTraits, words: string): TraitChange | undefined {
    const listsLabels = feature.name === 'json' && this.#request.task.kind === 'label' && schemaOf(this.#request, traits) !== undefined;
    const change = listsLabels ? { labelSchema: false } : feature.weaker(traits, words);
    return change === undefined || this.#asksTheSame(traits, { ...traits, ...change }) ? undefined : change;
  }

  #asksTheSame(a: EndpointTraits, b: EndpointTraits): boolean {
    // With metadata, so that what keeps a call at its provider counts too.
    const body = (traits: EndpointTraits): unknown => chatBody('', this.#request, traits, { metadata: { campaign: '' } });
    return isDeepStrictEqual(body(a), body(b));
  }

  #blindly(): TraitChange[] {
    const alone: TraitChange[] = [];
    const together: TraitChange[] = [];
    let all: TraitChange = {};
    for (const name of BLIND_ORDER) {
      const feature = FEATURES.find((each) => each.name === name) as Feature;
      const single = this.#weaker(feature, this.#base, '');
      if (single !== undefined && !alone.some((each) => isDeepStrictEqual(each, single))) alone.push(single);
      const further = this.#weaker(feature, { ...this.#base, ...all }, '');
      if (further === undefined) continue;
      all = joinChanges(all, further);
      together.push(all);
    }
    return [...alone, ...together.slice(1)];
  }
}
