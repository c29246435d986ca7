/** Follows a campaign until it ends: one live line on a terminal, plain lines elsewhere. */
import { setTimeout as sleep } from 'node:timers/promises';
import { StillhouseError } from '../contracts/errors.ts';
import type { RunningActivity } from '../client/campaigns.ts';
import type { CampaignState } from '../contracts/state.ts';
import type { ApiClient, CampaignResource } from './api-client.ts';
import { bar, duration, firstAnswersText, percent } from './format.ts';
import { StageClock, stageShare } from './progress.ts';
import { cut, printable, printableLines } from './terminal.ts';

export interface Screen {
  /** Keeps the line. */
  line(text: string): void;
  /** Replaces the live line; nothing off a terminal. */
  live(text: string): void;
  /** What a terminal shows in its live line anyway. */
  plain(text: string): void;
}

interface Output {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): boolean;
}

const CLEAR_LINE = '\r\u001b[2K';

function plainScreen(output: Output): Screen {
  const line = (text: string): void => void output.write(`${printableLines(text)}\n`);
  return { line, plain: line, live: () => undefined };
}

export function createScreen(output: Output): Screen {
  if (output.isTTY !== true) return plainScreen(output);
  let shown = '';
  return {
    line(text) {
      output.write(`${CLEAR_LINE}${printableLines(text)}\n${shown}`);
    },
    live(text) {
      // A line that reached the last column would be two on many terminals.
      shown = cut(printable(text), (output.columns ?? 80) - 1);
      output.write(CLEAR_LINE + shown);
    },
    plain: () => undefined,
  };
}

export interface Followed {
  readonly campaign: CampaignResource;
  /** Milliseconds by `${round} ${stage}`, as far as this process saw them. */
  readonly observedMs: ReadonlyMap<string, number>;
}

const POLL_MS = 700;
/** Without a terminal a stage says how far it is after so much of it, and after so long. */
const PLAIN_STEP = 0.1;
const PLAIN_EVERY_MS = 30_000;
/** The service may be away this long (Temporal killed, workers restarting) before the command gives up. */
const PATIENCE_MS = 180_000;
const MAX_FAILURE_CHARACTERS = 160;
/** Silence of the workers that is worth a line: longer than they take to start. */
const SILENCE_MS = 15_000;

function activityText(activities: readonly RunningActivity[] | undefined): string {
  return (activities ?? [])
    .map(({ name, contestant, attempt, done, total, epoch, epochs, lossNats, note, lastFailure }) =>
      [
        contestant === undefined ? name : `${contestant}: ${name}`,
        ...(epoch === undefined || epochs === undefined ? [] : [`epoch ${epoch} of ${epochs}, step`]),
        ...(done === undefined ? [] : [total === undefined ? String(done) : `${done}/${total}`]),
        ...(lossNats === undefined ? [] : [`loss ${lossNats.toFixed(3)}`]),
        ...(note === undefined ? [] : [printable(note)]),
        ...(attempt > 1 ? [`attempt ${attempt}${lastFailure === undefined ? '' : ` after: ${cut(printable(lastFailure), MAX_FAILURE_CHARACTERS)}`}`] : []),
      ].join(' '),
    )
    .join(', ');
}

class Follower {
  readonly #screen: Screen;
  readonly #observedMs = new Map<string, number>();
  #key = '';
  #since = 0;
  #printedProgress = 0;
  #printedAtMs = 0;
  #clock = new StageClock(Date.now());
  #printedAttempts = '';
  #printedResume: number | undefined;
  #rounds = 0;
  readonly #told = new Set<string>();

  constructor(screen: Screen) {
    this.#screen = screen;
  }

  get observedMs(): ReadonlyMap<string, number> {
    return this.#observedMs;
  }

  show(campaign: CampaignResource): void {
    const { state, activities } = campaign;
    if (state === undefined) return;
    this.#showStage(state);
    this.#showFirstAnswers(state);
    this.#showTournament(state);
    for (const round of campaign.rounds.slice(this.#rounds)) {
      this.#screen.line(`round ${round.round} done: asked ${round.requests}, ${round.accepted} rows to learn from so far, loss ${round.lossFirstNats.toFixed(3)} → ${round.lossLastNats.toFixed(3)}, student ${percent(round.studentScore)}, teacher ${percent(round.teacherScore)}, retention ${round.retention.mean.toFixed(3)}`);
    }
    this.#rounds = Math.max(this.#rounds, campaign.rounds.length);
    const text = activityText(activities);
    const now = Date.now();
    const share = stageShare(state, activities);
    const pace = this.#clock.measure(share, activities ?? [], now);
    const attempts = (activities ?? []).filter(({ attempt }) => attempt > 1).map(({ name, attempt }) => `${name} ${attempt}`).join();
    if (attempts !== '' && attempts !== this.#printedAttempts) this.#screen.line(`  again: ${text}`);
    this.#printedAttempts = attempts;
    this.#screen.live([`round ${state.round}/${state.maxRounds} ${state.stage.padEnd(10)} ${bar(share, 24)} ${percent(share).padStart(7)}`, duration(now - this.#since), ...pace, text].join('  '));
    if (share >= 1 || state.status !== 'running') return;
    if (share < this.#printedProgress + PLAIN_STEP && (text === '' || now - this.#printedAtMs < PLAIN_EVERY_MS)) return;
    [this.#printedProgress, this.#printedAtMs] = [share, now];
    this.#screen.plain(`  ${[`${state.stage} ${percent(share)}`, ...pace, ...(text === '' ? [] : [text])].join(', ')}`);
  }

  /** What came of the first question of each kind, once. */
  #showFirstAnswers({ firstAnswers }: CampaignState): void {
    if (firstAnswers === undefined || firstAnswers.answers.length === 0) return;
    const text = firstAnswersText(firstAnswers);
    if (this.#told.has(text)) return;
    this.#told.add(text);
    for (const line of text.split('\n')) this.#screen.line(printable(line));
  }

  /** A line for each score of a contestant and each end of one, as they come. */
  #showTournament({ tournament }: CampaignState): void {
    for (const { name, epochs, measured, ended, status } of tournament?.contestants ?? []) {
      const lines = measured.map(({ epoch, score }) => `  ${name}: ${percent(score)} on the development rows after epoch ${epoch} of ${epochs}`);
      if (ended !== undefined && status !== 'competing') lines.push(`  ${name} ${status === 'winner' ? 'won' : status}: ${printable(ended.reason)}`);
      for (const line of lines.filter((each) => !this.#told.has(each))) {
        this.#told.add(line);
        this.#screen.line(line);
      }
    }
  }

  #showOutage({ pauseReason, resumesAtMs }: CampaignState): void {
    if (resumesAtMs !== undefined && resumesAtMs !== this.#printedResume) this.#screen.line(`  paused: ${printable(pauseReason ?? '')}; asked again in ${duration(Math.max(0, resumesAtMs - Date.now()))}`);
    if (resumesAtMs === undefined && this.#printedResume !== undefined) this.#screen.line('  asking the provider again');
    this.#printedResume = resumesAtMs;
  }

  #showStage(state: CampaignState): void {
    this.#showOutage(state);
    const key = `${state.round} ${state.stage}`;
    const now = Date.now();
    if (key === this.#key) {
      this.#observedMs.set(key, now - this.#since);
      return;
    }
    if (this.#key !== '') {
      const tookMs = now - this.#since;
      this.#observedMs.set(this.#key, tookMs);
      this.#screen.line(`  ${this.#key.split(' ')[1]} took ${duration(tookMs)}`);
    }
    this.#key = key;
    this.#since = now;
    [this.#printedProgress, this.#printedAtMs, this.#clock] = [0, now, new StageClock(now)];
    if (state.stage !== 'finished') this.#screen.line(`round ${state.round}/${state.maxRounds}: ${state.stage}`);
  }
}

const isPassing = (error: unknown): boolean => error instanceof StillhouseError && (error.code === 'UNAVAILABLE' || error.code === 'INTERNAL' || error.code === 'RATE_LIMITED');

/**
 * Polls until the campaign is over, or paused by its budget or a failure: then it waits for a person
 * and so this returns. Waits through times in which the service or the provider does not answer.
 */
export async function follow(api: ApiClient, name: string, screen: Screen, signal: AbortSignal): Promise<Followed> {
  const follower = new Follower(screen);
  let answeredAt = Date.now();
  let saidAway = false;
  for (;;) {
    try {
      const campaign = await api.get(name);
      if (campaign.status !== 'running' || campaign.state !== undefined) {
        answeredAt = Date.now();
        if (saidAway) screen.line('the service answers again');
        saidAway = false;
      } else if (!saidAway && Date.now() - answeredAt > SILENCE_MS) {
        screen.line('waiting: no worker answers for the state of the campaign');
        saidAway = true;
      }
      follower.show(campaign);
      const waits = campaign.state?.status === 'paused' && campaign.state.pauseKind !== undefined && campaign.state.pauseKind !== 'user' && campaign.state.pauseKind !== 'provider';
      if (campaign.status !== 'running' || waits) {
        screen.live('');
        return { campaign, observedMs: follower.observedMs };
      }
    } catch (error) {
      if (!isPassing(error) || Date.now() - answeredAt > PATIENCE_MS) throw error;
      if (!saidAway) screen.line(`waiting: ${error instanceof Error ? error.message : String(error)}`);
      saidAway = true;
    }
    await sleep(POLL_MS, undefined, { signal });
  }
}
