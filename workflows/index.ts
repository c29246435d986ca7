/** What workers bundle: every export is a workflow, named as in src/contracts/names.ts. */
export { campaign } from './campaign.ts';
export { check } from './check.ts';
export { contestant } from './contestant.ts';
