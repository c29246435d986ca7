/** A judge's scores, 1 to 10, on the scale of all scores, 0 to 1: a useless answer has nothing of a score. */
export const LOWEST_JUDGED = 1;
export const HIGHEST_JUDGED = 10;

export const scoreShare = (judged: number): number => (judged - LOWEST_JUDGED) / (HIGHEST_JUDGED - LOWEST_JUDGED);

/** The judge's score that a score stands for. */
export const judgedScore = (share: number): number => LOWEST_JUDGED + share * (HIGHEST_JUDGED - LOWEST_JUDGED);
