package fault

import "strings"

// DidYouMean is ` (did you mean "x"?)` with the known word that is nearest to a wrong one, or nothing when none is
// near. Case, and '.', '-' and '_' against each other, hardly count: they are what people mix up.
func DidYouMean(wrong string, known []string) string {
	best, bestDistance := "", max(2, len(wrong)/3)+1
	for _, word := range known {
		if d := distance(fold(wrong), fold(word)); d < bestDistance {
			best, bestDistance = word, d
		}
	}
	if best == "" {
		return ""
	}
	return ` (did you mean "` + best + `"?)`
}

func fold(s string) string {
	return strings.NewReplacer(".", "_", "-", "_", " ", "_").Replace(strings.ToLower(s))
}

// distance counts the letters to insert, delete, replace or swap with their neighbour to come from a to b
// (Damerau-Levenshtein, restricted).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
