package expression_test

import (
	"strings"
	"testing"
	"time"

	"shopbell.dev/pkg/expression"
)

func order() *expression.Event {
	return &expression.Event{
		Type: "order_created", ShopID: "demo", Environment: "live",
		Data: []byte(`{"order_no":1042,"total":549.50,"status":"shipped","email":"kim@example.com","big":12345678901234567890,"items":[{"sku":"A"},{"sku":"B"}],"note":null}`),
	}
}

func TestFilter_SaysWhetherAnEventIsWanted(t *testing.T) {
	for _, row := range []struct {
		text string
		want bool
		fail string
	}{
		{`data.status == "shipped"`, true, ""},
		{`data.total > 100.0`, true, ""},
		{`data.total > 1000`, false, ""},
		{`type == "order_created" && shop_id == "demo" && environment == "live" && action == ""`, true, ""},
		{`data.items.exists(i, i.sku == "B")`, true, ""},
		{`has(data.coupon)`, false, ""},
		{`data.?coupon.orValue("none") == "none"`, true, ""},
		{`data.coupon == "X"`, false, "no such key: coupon"},
		{`data.email`, false, "not true or false"},
		{`data.items.all(a, data.items.all(b, data.items.all(c, data.items.all(d, [1,2,3,4,5,6,7,8,9,10].all(e, [1,2,3,4,5,6,7,8,9,10].all(f, [1,2,3,4,5,6,7,8,9,10].all(g, [1,2,3,4,5,6,7,8,9,10].all(h, true))))))))`, false, "cost limit"},
	} {
		f, err := expression.ParseFilter(row.text)
		if err != nil {
			t.Errorf("ParseFilter(%s): %v", row.text, err)
			continue
		}
		got, err := f.Wants(order())
		if got != row.want || (err != nil) != (row.fail != "") || err != nil && !strings.Contains(err.Error(), row.fail) {
			t.Errorf("%s: %v, %v, want %v, %q", row.text, got, err, row.want, row.fail)
		}
	}
}

func TestParse_SaysWhereTheMistakeIs(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{`data.total >`, "line 1, column"},
		{"data.total > 1\n&& foo", "line 2, column 4: undeclared reference to 'foo'"},
		{`"yes"`, "a filter must give true or false"},
		{strings.Repeat("a", 9000), "at most"},
	} {
		if _, err := expression.ParseFilter(row.text); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("ParseFilter(%.40q): %v, want %q", row.text, err, row.want)
		}
	}
}

func TestTransform_MakesTheBody(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{`{'text': 'Order ' + string(data.order_no) + ' <' + data.email + '>'}`, `{"text":"Order 1042 <kim@example.com>"}`},
		{`{'skus': data.items.map(i, i.sku), 'total': data.total, 'note': data.note, 'n': 3}`, `{"n":3,"note":null,"skus":["A","B"],"total":549.5}`},
		{`data`, `{"big":12345678901234567000,"email":"kim@example.com","items":[{"sku":"A"},{"sku":"B"}],"note":null,"order_no":1042,"status":"shipped","total":549.5}`},
	} {
		tr, err := expression.ParseTransform(row.text)
		if err != nil {
			t.Errorf("ParseTransform(%s): %v", row.text, err)
			continue
		}
		if got, err := tr.Body(order()); err != nil || string(got) != row.want {
			t.Errorf("%s: %s, %v, want %s", row.text, got, err, row.want)
		}
	}
	tr, err := expression.ParseTransform(`{'x': data.missing}`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Body(order()); err == nil || !strings.Contains(err.Error(), "no such key: missing") {
		t.Errorf("a missing field: %v, want an error that names it", err)
	}
}

func TestExpression_IsBoundedOnHostileInput(t *testing.T) {
	f, err := expression.ParseFilter(`data.all(a, data.all(b, data.all(c, data.all(d, true))))`)
	if err != nil {
		t.Fatal(err)
	}
	e := &expression.Event{Data: []byte("[" + strings.Repeat("1,", 5000) + "1]")}
	done := make(chan error, 1)
	go func() { _, err := f.Wants(e); done <- err }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "cost limit") {
			t.Errorf("5001^4 steps: %v, want the cost limit", err)
		}
	case <-time.After(5 * time.Minute): // 5001^4 steps would take years
		t.Fatal("the cost limit did not end it")
	}
}
