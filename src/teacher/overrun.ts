/** How far attempts of which nothing came may take a batch beyond what was set aside for it. */
import { StillhouseError } from '../contracts/errors.ts';
import type { TeacherRequest } from '../contracts/records.ts';
import type { Cost } from '../contracts/state.ts';

export interface Overrun {
  /** A call is answered: what is left of its bound is there for others. */
  answered(request: TeacherRequest, spent: Cost): void;
  /** UNAVAILABLE when what was lost exceeds what others have left by more than `atOnce` of the dearest calls: no further attempt may begin. */
  lost(request: TeacherRequest, bound: Cost, reason?: string): void;
}

/** `bounds` is what was set aside for each call; `atOnce` so many may be in flight. Whoever asks again sets aside anew what was lost. */
export function createOverrun(bounds: ReadonlyMap<TeacherRequest, Cost>, atOnce: number, model: string): Overrun {
  const most = [...bounds.values()].reduce((a, b) => ({ usd: Math.max(a.usd, b.usd), tokens: Math.max(a.tokens, b.tokens) }), { usd: 0, tokens: 0 });
  const own = (request: TeacherRequest): Cost => bounds.get(request) ?? { usd: 0, tokens: 0 };
  let usd = 0;
  let tokens = 0;
  let attempts = 0;
  return {
    answered: (request, spent) => {
      usd -= own(request).usd - spent.usd;
      tokens -= own(request).tokens - spent.tokens;
    },
    lost: (request, bound, reason) => {
      // Less than the call's bound: an answer that came and is given up with its call, within what was set aside for it.
      if (bound.usd < own(request).usd || bound.tokens < own(request).tokens) return;
      usd += bound.usd;
      tokens += bound.tokens;
      attempts += 1;
      if (usd <= atOnce * most.usd && tokens <= atOnce * most.tokens) return;
      throw new StillhouseError('UNAVAILABLE', `expected answers of ${model}, got none to ${attempts} attempts that may have been billed all the same: what was set aside for them is used up${reason === undefined ? '' : `. The last: ${reason}`}`);
    },
  };
}
