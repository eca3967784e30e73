package main

import (
	"fmt"
	"strings"
)

// report is what was measured of one store, as the cells of tables. Each row begins with what it is of.
type report struct {
	name                    string
	writes, searches, plans [][]string
	forgot                  string
}

// printReports prints one table for all stores of what writing cost, one of searches and one of their plans.
func printReports(all []*report) {
	table(all, "attempts in it", []string{"attempts/s", "CPU-s per 1,000, in the server", "bytes per attempt"}, func(r *report) [][]string { return r.writes })
	fmt.Println("\nForgetting the oldest tenth:")
	for _, r := range all {
		fmt.Println("- " + r.forgot)
	}
	table(all, "search, a page of 50", []string{"first p50 ms", "again p50", "p99"}, func(r *report) [][]string { return r.searches })
	for _, r := range all {
		for _, row := range r.plans {
			row[1] = "`" + row[1] + "`"
		}
	}
	table(all, "search", []string{"plan"}, func(r *report) [][]string { return r.plans })
}

// table prints the rows of all stores side by side: they are of the same things, in the same order.
func table(all []*report, of string, columns []string, rows func(*report) [][]string) {
	head, line := []string{of}, []string{"---"}
	for _, r := range all {
		for _, c := range columns {
			head, line = append(head, r.name+": "+c), append(line, "---")
		}
	}
	fmt.Printf("\n| %s |\n|%s|\n", strings.Join(head, " | "), strings.Join(line, "|"))
	for i, row := range rows(all[0]) {
		cells := row
		for _, r := range all[1:] {
			cells = append(cells[:len(cells):len(cells)], rows(r)[i][1:]...)
		}
		fmt.Printf("| %s |\n", strings.Join(cells, " | "))
	}
}
