// Command shopbell is the whole of Shopbell in one program.
package main

import "shopbell.dev/services/shopbell"

func main() { shopbell.Main() }
