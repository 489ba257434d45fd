from app.pages import render

assert render("x") == "<p>x</p>\n"
print("1 test, right")
