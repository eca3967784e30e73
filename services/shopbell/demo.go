package shopbell

type demoCmd struct{ flags }

// Run is the command.
func (c *demoCmd) Run() error { return nil }
